"""A step of offline DPO, its reference in the step, against TRL's DPOTrainer. Options as in against_trl.py.

python benchmarks/dpo_against_trl.py [--pairs 3] [--steps 4]
"""

from __future__ import annotations

import against_trl

if __name__ == "__main__":
    against_trl.main(["DPO"])
