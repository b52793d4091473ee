
# Names of containers, images and volumes, where the words above know flags only.
_bulkhead_names() {
    local program=bulkhead current=$2 word noun= verb= letters= words= lists=() i
    [[ $1 == */* ]] && program=$1
    _bulkhead "$@"
    [[ $current == -* ]] && return
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            --root | --run) ((i++)) ;;
            -*) ;;
            container | image | volume) [[ -n $noun ]] && break; noun=$word ;;
            *) verb=$word; break ;;
        esac
    done
    # Behind a flag that takes a value no name is meant.
    _bulkhead_switches "${noun:+$noun }$verb"
    case $3 in
        --*) [[ " $words " == *" $3 "* ]] || return ;;
        -?*) [[ ${3#-} == *[!"$letters"]* || -z $letters ]] && return ;;
    esac
    case $noun,$verb in
        , | container, | image, | volume, | *,ls | *,list | *,ps | *,prune | *,build | *,import | *,load) return ;;
        ,run | ,create | container,run | container,create) lists=("images --format {{.Repository}}:{{.Tag}}") ;;
        ,rmi | ,history | ,save | ,tag | image,*) lists=("images --format {{.Repository}}:{{.Tag}}") ;;
        ,inspect) lists=("ps -a --format {{.Names}}" "images --format {{.Repository}}:{{.Tag}}") ;;
        ,attach | ,commit | ,exec | ,kill | ,logs | ,pause | ,port | ,rename | ,restart | ,rm | ,start | ,stop | ,unpause | ,wait | container,*)
            lists=("ps -a --format {{.Names}}") ;;
        volume,inspect | volume,rm) lists=("volume ls -q") ;;
        *) return ;;
    esac
    local names=() list
    for list in "${lists[@]}"; do
        # The list's words are ours and have no blanks in them.
        # shellcheck disable=SC2086
        names+=($("$program" $list 2>/dev/null))
    done
    # What is tagged "latest" is known without its tag; a colon would part the word.
    names=($(compgen -W "${names[*]%:latest}" -- "$current"))
    [[ ${#names[@]} -gt 0 ]] && COMPREPLY=("${names[@]}")
}
complete -F _bulkhead_names -o nosort -o bashdefault -o default bulkhead
