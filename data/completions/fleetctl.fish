# SPDX-License-Identifier: Apache-2.0
# fish completion for fleetctl(1). Commands and options come from fleetctl's own help, names of units, machines and settings
# from the cluster; nothing is said if it cannot be reached.

function __fleetctl_commands
    fleetctl help 2>/dev/null | sed -n '/^COMMANDS:/,/^$/s/^\t\([a-z][a-z-]*\)  *\(.*\)/\1\t\2/p'
end

# The command that was typed, or nothing.
function __fleetctl_command
    set -l commands (__fleetctl_commands | string replace -r '\t.*' '')
    for word in (commandline -opc)[2..-1]
        if contains -- $word $commands
            echo $word
            return 0
        end
    end
    return 1
end

# One with a value ends in '='.
function __fleetctl_options
    set -l command (__fleetctl_command; or echo version)
    fleetctl help $command 2>/dev/null |
        sed -n 's/^\t\(-[a-zA-Z], \)\{0,1\}\(--[a-z-]*=\{0,1\}\)[^ ]*  *\(.*\)/\2\t\3/p'
end

# The words that the command's --output can have.
function __fleetctl_formats
    fleetctl help (__fleetctl_command; or echo version) 2>/dev/null |
        awk '/--output=FORMAT/ { on = 1; sub(/.*=FORMAT +/, "") } on && /^\t-/ { exit } on' |
        tr -s ',\t\n ' '\n' | grep -vx or
end

function __fleetctl_units
    fleetctl --request-timeout=2 list-unit-files --no-legend --fields=unit,state 2>/dev/null | string replace -r '\t+' '\t'
end

function __fleetctl_machines
    for line in (fleetctl --request-timeout=2 list-machines --no-legend --full --fields=machine,hostname 2>/dev/null)
        set -l words (string split -n \t $line)
        printf '%s\t%s\n' $words[1] $words[2] $words[2] $words[1]
    end
end

# Each with the "=" behind which its value stands.
function __fleetctl_settings
    fleetctl --request-timeout=2 list-settings --no-legend --fields=name,meaning 2>/dev/null |
        string replace -r '\t+' '=\t'
end

# What follows "--option=", with "--option=" before it.
function __fleetctl_value
    set -l option (string replace -r '=.*' '' -- (commandline -ct))
    switch $option
        case --output
            __fleetctl_formats | string replace -r '^' -- "$option="
        case --machine
            __fleetctl_machines | string replace -r '^' -- "$option="
        case --unit
            __fleetctl_units | string replace -r '^' -- "$option="
        case --tunnel
            __fish_print_hostnames | string replace -r '^' -- "$option="
    end
end

# The arguments that the command takes: "[MACHINE|UNIT] [COMMAND...]".
function __fleetctl_takes
    set -l command (__fleetctl_command); or return 1
    fleetctl help $command 2>/dev/null | sed -n '/^USAGE:/,/^$/s/^\tfleetctl [a-z-]* \[OPTION\.\.\.\] //p' |
        string match -qr -- $argv[1]
end

function __fleetctl_takes_files
    contains -- (__fleetctl_command) submit load start verify fd-forward
end

complete -c fleetctl -f
complete -c fleetctl -n 'not __fleetctl_command >/dev/null' -a '(__fleetctl_commands)'
complete -c fleetctl -n 'contains -- help (__fleetctl_command)' -a '(__fleetctl_commands)'
complete -c fleetctl -n 'string match -q -- "-*" (commandline -ct)' -a '(__fleetctl_options)'
complete -c fleetctl -n 'string match -q -- "--*=*" (commandline -ct)' -a '(__fleetctl_value)'
complete -c fleetctl -n '__fleetctl_takes UNIT' -a '(__fleetctl_units)'
complete -c fleetctl -n '__fleetctl_takes MACHINE' -a '(__fleetctl_machines)'
complete -c fleetctl -n '__fleetctl_takes NAME=VALUE' -a '(__fleetctl_settings)'
complete -c fleetctl -n 'string match -q -- "-o" (commandline -opc)[-1]' -a '(__fleetctl_formats)'
complete -c fleetctl -n __fleetctl_takes_files -F
