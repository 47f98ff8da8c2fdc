# SPDX-License-Identifier: MIT
#
# Completion of rmemctl, rmemd and rmem-server for fish. What they offer is what
# their --help tells, so it cannot be out of date.

# The command of rmemctl that is on the line, if there is one, and how many words
# follow it.
function __rmem_command
    set -l words (commandline -opc)
    set -l skip ''
    set -l found
    for word in $words[2..]
        if test -n "$skip"
            set skip ''
        else if test "$word" = --socket
            set skip yes
        else if not string match -q -- '-*' $word
            set -a found $word
        end
    end
    string join \n -- $found
end

function __rmem_options
    set -l program (commandline -opc)[1]
    set -l command
    if string match -qr '(^|/)rmemctl$' -- $program
        set command (__rmem_command)[1]
    end
    set -l help ($program $command --help 2>/dev/null)
    if test -n "$command"
        set -a help ($program --help 2>/dev/null | string match -- '  --socket*')
    end
    string replace -rf '^  (?:-[a-zA-Z],)?(--[a-z-]+).*?(?:  +(.*))?$' '$1\t$2' -- $help
end

function __rmem_commands
    set -l program (commandline -opc)[1]
    $program --help 2>/dev/null | string replace -rf '^  ([a-z]+) +(.*)$' '$1\t$2'
end

function __rmem_regions
    for node in /dev/rmem-*
        string replace /dev/rmem- '' -- $node
    end
end

# What follows an option that takes a file or a directory is one.
function __rmem_wants_file
    set -l words (commandline -opc)
    string match -qr -- '^--(socket|bind|state-dir|config)$' $words[-1]
end

for program in rmemctl rmemd rmem-server
    complete -c $program -f
    complete -c $program -n 'not __rmem_wants_file; and string match -q -- "-*" (commandline -ct)' -a '(__rmem_options)'
    complete -c $program -n __rmem_wants_file -F
end
complete -c rmemctl -n 'test (count (__rmem_command)) = 0' -a '(__rmem_commands)'
complete -c rmemctl -n 'test (count (__rmem_command)) = 1; and test (__rmem_command)[1] != attach' -a '(__rmem_regions)'
complete -c rmemctl -n 'string match -q -- --on-loss (commandline -opc)[-1]' -a 'wait error kill'
complete -c rmemctl -n 'string match -q -- --pull (commandline -opc)[-1]' -a 'none all recorded'
