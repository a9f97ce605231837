"""From run directories to a page: reading runs, statistics, charts, HTML, and the same in a terminal. No torch in here."""
