# For what a guest asks of its host (attach.sh).

# tool COMMAND...: has the back-end obey, and prints what it says.
tool() {
    echo "$*" > commands
    # Who holds the pipe open in attach.sh keeps this from being an end of it.
    read -r -t 900 line < answers || line="no answer"
    echo "$line"
}

# vmm_maps, vmm_rss: of the VMM.
vmm_maps() { wc -l < "/proc/$pid/maps"; }
vmm_rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status"; }
