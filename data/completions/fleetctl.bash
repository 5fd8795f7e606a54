# SPDX-License-Identifier: Apache-2.0
# bash completion for fleetctl(1). Names of units come from the cluster; nothing is said if it cannot be reached.

_fleetctl_units() {
    fleetctl --request-timeout=2 list-unit-files --no-legend --fields=unit 2>/dev/null
}

_fleetctl_machines() {
    fleetctl --request-timeout=2 list-machines --no-legend --fields=hostname 2>/dev/null
}

_fleetctl() {
    local line=${COMP_LINE:0:COMP_POINT} verb= word i
    local cur=${line##*[[:space:]]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local verbs='cat confirm-lost cordon destroy drain explain help list-machines list-members list-unit-files list-units load start stop submit uncordon undrain unload version'
    local options='--endpoint= --request-timeout= --debug --help --version'

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ " $verbs " == *" $word "* ]]; then
            verb=$word
            break
        fi
    done
    case $verb in
        '') options+=" $verbs" ;;
        list-*) options+=' --full --no-legend --fields= --output=' ;;
        cordon | uncordon | undrain | confirm-lost) options+=' --full' ;;
        drain) options+=' --full --no-block --deadline=' ;;
        explain) options+=' --full --output=' ;;
        submit) options+=' --full --replace' ;;
        load | start) options+=' --full --replace --no-block --block-attempts=' ;;
        stop | unload | destroy) options+=' --full --no-block --block-attempts=' ;;
    esac
    if [[ $prev == -o ]]; then
        COMPREPLY=($(compgen -W 'text json json-pretty' -- "$cur"))
    elif [[ $cur == --output=* ]]; then
        COMPREPLY=($(compgen -W '--output=text --output=json --output=json-pretty' -- "$cur"))
    elif [[ -z $verb || $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    else
        case $verb in
            help) COMPREPLY=($(compgen -W "$verbs" -- "$cur")) ;;
            cordon | uncordon | drain | undrain | confirm-lost)
                COMPREPLY=($(compgen -W "$(_fleetctl_machines)" -- "$cur")) ;;
            submit) COMPREPLY=($(compgen -f -- "$cur")) ;;
            load | start) COMPREPLY=($(compgen -W "$(_fleetctl_units)" -- "$cur") $(compgen -f -- "$cur")) ;;
            cat | explain | stop | unload | destroy | list-unit*)
                COMPREPLY=($(compgen -W "$(_fleetctl_units)" -- "$cur")) ;;
        esac
    fi
    # readline breaks words at these, and replaces only what is behind the last of them.
    word=${cur%"${cur##*[@:=]}"}
    COMPREPLY=("${COMPREPLY[@]#"$word"}")
}

complete -F _fleetctl fleetctl
