#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bash completion for fleetctl(1). Commands and options come from fleetctl's own help, names of units, machines and settings
# from the cluster; nothing is said if it cannot be reached.

_fleetctl_commands() {
    fleetctl help 2>/dev/null | sed -n '/^COMMANDS:/,/^$/s/^\t\([a-z][a-z-]*\) .*/\1/p'
}

# The options of a command, and those of all; one with a value ends in '='.
_fleetctl_options() {
    fleetctl help "$1" 2>/dev/null | sed -n 's/^\t\(-[a-zA-Z], \)\{0,1\}\(--[a-z-]*=\{0,1\}\).*/\2/p'
}

# What a command's arguments are: "[MACHINE|UNIT] [COMMAND...]".
_fleetctl_arguments() {
    fleetctl help "$1" 2>/dev/null | sed -n '/^USAGE:/,/^$/s/^\tfleetctl [a-z-]* \[OPTION\.\.\.\] \(.*\)/\1/p'
}

# The words that a command's --output can have.
_fleetctl_formats() {
    fleetctl help "$1" 2>/dev/null |
        awk '/--output=FORMAT/ { on = 1; sub(/.*=FORMAT +/, "") } on && /^\t-/ { exit } on' |
        tr -s ',\t\n ' '\n' | grep -vx or
}

_fleetctl_units() {
    fleetctl --request-timeout=2 list-unit-files --no-legend --fields=unit 2>/dev/null
}

_fleetctl_machines() {
    fleetctl --request-timeout=2 list-machines --no-legend --full --fields=machine,hostname 2>/dev/null
}

# Each with the "=" behind which its value stands.
_fleetctl_settings() {
    fleetctl --request-timeout=2 list-settings --no-legend --fields=name 2>/dev/null | sed 's/$/=/'
}

# The candidates for "OPTION=" of a command, each with "OPTION=" before it.
_fleetctl_value() {
    local option=${2%%=*} value=${2#*=}
    case $option in
        --output) compgen -P "$option=" -W "$(_fleetctl_formats "$1")" -- "$value" ;;
        --machine) compgen -P "$option=" -W "$(_fleetctl_machines)" -- "$value" ;;
        --unit) compgen -P "$option=" -W "$(_fleetctl_units)" -- "$value" ;;
        --tunnel) compgen -P "$option=" -A hostname -- "$value" ;;
        --*-file) compgen -P "$option=" -f -- "$value" ;;
    esac
}

_fleetctl() {
    local line=${COMP_LINE:0:COMP_POINT} command='' word i commands arguments
    local cur=${line##*[[:space:]]} prev=${COMP_WORDS[COMP_CWORD - 1]}

    COMPREPLY=()
    commands=$(_fleetctl_commands)
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ " ${commands//$'\n'/ } " == *" $word "* ]]; then
            command=$word
            break
        fi
    done
    if [[ $cur == --*=* ]]; then
        mapfile -t COMPREPLY < <(_fleetctl_value "${command:-version}" "$cur")
    elif [[ $prev == -o ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_fleetctl_formats "${command:-version}")" -- "$cur")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_fleetctl_options "${command:-version}")" -- "$cur")
        [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
    elif [[ -z $command || $command == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    else
        arguments=$(_fleetctl_arguments "$command")
        [[ $arguments == *UNIT* ]] && mapfile -t COMPREPLY < <(compgen -W "$(_fleetctl_units)" -- "$cur")
        [[ $arguments == *MACHINE* ]] &&
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$(_fleetctl_machines)" -- "$cur")
        if [[ $arguments == *NAME=VALUE* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_fleetctl_settings)" -- "$cur")
            compopt -o nospace
        fi
        case $command in
            submit | load | start | verify | fd-forward)
                mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
    fi
    # readline breaks words at these, and replaces only what is behind the last of them.
    word=${cur%"${cur##*[@:=]}"}
    COMPREPLY=("${COMPREPLY[@]#"$word"}")
}

complete -F _fleetctl fleetctl
