# Completion of `python bench.py ...` in fish. argcomplete's own script covers commands only, not scripts run by Python.
function __lamzoo_complete
    set -lx _ARGCOMPLETE 2
    set -lx _ARGCOMPLETE_DFS \t
    set -lx _ARGCOMPLETE_IFS \n
    set -lx _ARGCOMPLETE_SUPPRESS_SPACE 1
    set -lx _ARGCOMPLETE_SHELL fish
    set -lx COMP_LINE (commandline -p)
    set -lx COMP_POINT (string length (commandline -cp))
    set -l words (commandline -op)
    $words[1] $words[2] 8>&1 9>&2 1>/dev/null 2>&1
end
for name in python python3
    complete --command $name --condition 'string match -qr "^\S+ +(\S*/)?bench\.py " -- (commandline -cp)' \
        --no-files --arguments '(__lamzoo_complete)'
end
