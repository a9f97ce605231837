"""pggrpo completion: a script that lets your shell complete commands, keys and values: pggrpo completion bash|zsh|fish."""

from __future__ import annotations

from pggrpo_cli.completions import SHELLS
from pggrpo_cli.errors import UsageError

HELP = """\
usage: pggrpo completion bash|zsh|fish

Prints a script that lets the shell complete commands, groups and their options (loss=<TAB>), keys of what is chosen
(loss.b<TAB>), values where there are only some, runs, and files. To have it in every shell, add a line:

  bash   to ~/.bashrc:                   eval "$(pggrpo completion bash)"
  zsh    to ~/.zshrc, after compinit:    eval "$(pggrpo completion zsh)"
  fish   to ~/.config/fish/config.fish:  pggrpo completion fish | source
"""

BASH = r"""# pggrpo for bash: eval "$(pggrpo completion bash)"
_pggrpo() {
    local line="${COMP_LINE:0:COMP_POINT}" word one breaks=""
    COMPREPLY=()
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+="="
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=":"
    word="${line##*[[:space:]]}"
    while IFS= read -r one; do
        one="${one%%$'\t'*}"
        # bash breaks words at = and : as well (unless told otherwise), and replaces only what stands behind the last one
        if [[ $word != [\"\']* ]]; then
            [[ -z $breaks ]] || one="${one#"${word%"${word##*[$breaks]}"}"}"
            case "$one" in *[=./,\[]) ;; *) one+=' ' ;; esac
        fi
        COMPREPLY+=("$one")
    done < <(pggrpo __complete --line "$line" 2>/dev/null)
}
complete -o nospace -F _pggrpo pggrpo
"""

ZSH = r"""#compdef pggrpo
# pggrpo for zsh: eval "$(pggrpo completion zsh)"
_pggrpo() {
    local -a lines goes_on ends
    local line found
    lines=("${(@f)$(pggrpo __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for line in $lines; do
        found=${line%%$'\t'*}
        case $found in
            *[=./,\[]) goes_on+=("$found") ;;
            *) ends+=("$found") ;;
        esac
    done
    compadd -S '' -a goes_on
    compadd -a ends
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _pggrpo pggrpo
"""

FISH = r"""# pggrpo for fish: pggrpo completion fish | source
function __pggrpo_complete
    set -l words (commandline -opc)
    pggrpo __complete $words[2..] (commandline -ct) 2>/dev/null
end
complete -c pggrpo -f -a '(__pggrpo_complete)'
"""

SCRIPTS = dict(zip(SHELLS, (BASH, ZSH, FISH), strict=True))


def main(arguments: list[str]) -> int:
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0 if arguments else 2
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise UsageError(f"`{' '.join(arguments)}`: give one shell: {', '.join(SCRIPTS)}; pggrpo completion --help.")
    print(SCRIPTS[arguments[0]], end="")
    return 0
