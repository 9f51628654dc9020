namespace Vmm.Testing.Triage;

/// <summary>Which function of a Linux call trace a report is named after.</summary>
internal static class LinuxFrames
{
    /// <summary>The most functions of a report that are looked at.</summary>
    internal const int MaximumNames = 512;

    /// <summary>
    /// Functions that report, that are used everywhere, or that wait for somebody else: where a bug shows, not where it is. As
    /// syzkaller chooses, so that titles are the same as in its bug lists. Each is a part of a name; with ^ its beginning, with $ its end.
    /// </summary>
    private static readonly string[] s_machinery =
    [
        // Sanitizers and their reports.
        "kasan", "hwasan", "kmsan", "__asan", "__msan", "__sanitizer", "kcsan_setup_watchpoint", "check_memory_region", "print_address_description", "print_report",
        "check_object", "check_heap_object", "debug_object", "timer_is_static_object", "work_is_static_object", "read_word_at_a_time", "kfence",
        // Traps, panics, warnings, dumps.
        "panic", "invalid_op", "report_bug", "fixup_bug", "do_error", "_trap$", "do_trap", "^asm_exc_", "^exc_", "handle_bug", "warn_slowpath", "warn_alloc", "warn_bogus", "__warn",
        "dump_stack", "show_stack", "walk_stack", "dump_backtrace", "arch_stack_walk", "stack_trace_save", "stack_trace_consume_entry", "print_tainted", "^get_taint$", "assertfail",
        "__fortify_report", "program_check_", "do_kernel_fault", "do_translation_fault", "do_mem_abort", "el1_abort", "el1h_64_sync", "perf_trace", "__phys_addr",
        // Locks and what watches them.
        "lockdep", "lock_acquire", "lock_release", "lock_class", "mark_lock", "mark_held_locks", "reacquire_held_locks", "print_usage_bug", "print_unlock", "imbalance_bug",
        "__might_fault", "might_fault", "might_sleep", "__might_resched", "bh_enable", "bh_disable", "trace_hardirq", "trace_softirq", "raw_spin_rq", "spin_lock", "spin_trylock",
        "spin_unlock", "read_lock", "read_trylock", "read_unlock", "write_lock", "write_trylock", "write_unlock", "^down$", "down_read", "down_write", "down_trylock", "up_read",
        "up_write", "^mutex_", "^__mutex_", "^rt_mutex_", "owner_on_cpu", "osq_lock", "osq_unlock", "seqprop_assert", "^lock_page", "^unlock_page", "lock_timer_base",
        // Allocation.
        "alloc_page", "malloc", "zalloc", "calloc", "krealloc", "kmem_cache", "allocate_slab", "__alloc_frozen_pages_noprof", "folio_alloc", "folio_unlock", "filemap_alloc_folio",
        "__filemap_get_folio", "find_or_create_page", "do_read_cache_folio", "read_cache_page", "pagecache_get_page", "grab_cache_page_write_begin", "slab_", "^kfree$", "^kvfree$",
        "kfree_skb", "ida_free",
        // Counters, bits, lists, trees.
        "^refcount_", "^kref_", "ref_tracker", "set_bit", "clear_bit", "change_bit", "test_bit", "list_add", "list_del", "list_replace", "list_move", "list_splice", "^rb_", "^__rb_",
        "^klist_", "xas_start", "xas_load", "xas_find", "rhashtable_lookup", "^crc", "crc_itu_t",
        // Strings and memory.
        "memcpy", "memcmp", "memset", "memchr", "memmove", "memdup", "strcmp", "strncmp", "strcpy", "strlcpy", "strncpy", "strscpy", "strlen", "strstr", "strnstr", "strnlen",
        "strchr", "strdup", "strndup", "string", "pointer", "snprintf", "scnprintf", "kasprintf", "kvasprintf", "va_format", "hex_dump_to_buffer", "print_hex_dump",
        "copy_to_user", "copy_from_user", "copy_to_iter", "copy_from_iter", "copy_page_to_iter", "copy_page_from_iter", "copy_folio_to_iter", "^copyin$", "^copyout$", "put_user", "get_user",
        "extract_user_to_sg", "extract_iter_to_sg", "_indirect_thunk_", "readb$", "readw$", "readl$", "readq$", "writeb$", "writew$", "writel$", "writeq$", "logic_in", "logic_out",
        // Messages.
        "printk", "dev_info", "dev_notice", "dev_warn", "dev_err", "dev_alert", "dev_crit", "dev_emerg",
        // Timers, work, waiting.
        "del_timer", "__timer_delete_sync", "sk_stop_timer_sync", "__mod_timer", "flush_work", "__cancel_work_timer", "cancel_work_sync", "try_to_grab_pending", "drain_workqueue",
        "destroy_workqueue", "queue_work", "insert_work", "__queue_delayed_work", "queue_delayed_work_on", "finish_wait", "__wake_up", "^complete$", "wait_for_completion", "kthread_stop",
        "cleanup_srcu_struct",
        // Objects of the driver model, and of files, on their way out.
        "kobject_", "add_uevent_var", "get_device_parent", "device_add", "device_del", "device_unregister", "device_destroy", "device_release", "devres_release_all", "^put_device$",
        "device_for_each_child", "device_remove_file", "tty_unregister_device", "sysfs_remove", "hwrng_unregister", "i2c_del_adapter", "__unregister_client", "rollback_registered",
        "unregister_netdev", "dummy_urb_enqueue", "usb_kill_urb", "usb_kill_anchored_urbs", "usb_control_msg", "usb_hcd_submit_urb", "usb_submit_urb", "^iput$", "^iput_final$", "^ihold$",
        "drop_nlink", "fast_dput", "dput", "mark_buffer_dirty", "find_lock_entries", "truncate_inode_pages_range",
    ];

    /// <summary>What a name may begin with, on one architecture or in one version, and mean the same system call.</summary>
    private static readonly string[] s_systemCallPrefixes =
    [
        "SYSC_", "SyS_", "sys_", "__x64_", "__ia32_", "__arm64_", "____sys_", "___sys_", "__sys_", "__se_sys_", "__se_", "__do_sys_", "compat_SYSC_", "compat_SyS_", "ksys_",
    ];

    /// <summary>Where work is handed out: below them a stall has its own functions, above them every stall looks alike.</summary>
    private static readonly string[] s_dispatchers =
    [
        "process_one_work", "do_syscall_", "do_fast_syscall_", "sysenter_dispatch", "tracesys_phase2", "el0_svc_handler", "invoke_syscall", "ret_fast_syscall", "netif_receive_skb",
        "do_softirq", "call_timer_fn", "_run_timers", "run_timer_softirq", "hrtimer_run", "run_ksoftirqd", "smpboot_thread_fn", "^kthread$", "start_secondary", "cpu_startup_entry",
        "ret_from_fork", "vfs_write", "vfs_read", "vfs_iter_read", "vfs_iter_write", "do_iter_read", "do_iter_write", "call_read_iter", "call_write_iter", "new_sync_read",
        "new_sync_write", "vfs_ioctl", "ksys_ioctl", "compat_ioctl", "compat_sys_ioctl", "blkdev_driver_ioctl", "blkdev_ioctl", "^call_mmap", "mmap_region", "do_mmap",
        "do_dentry_open", "vfs_open", "^sock_sendmsg", "^sock_recvmsg", "^sock_release", "^__sock_release", "^setsockopt$", "kernel_setsockopt", "sock_common_setsockopt", "^listen$",
        "kernel_listen", "sk_common_release", "^sock_mmap", "^accept$", "kernel_accept", "^sock_do_ioctl", "^sock_ioctl", "^compat_sock_ioctl", "^nfnetlink_rcv_msg",
        "^rtnetlink_rcv_msg", "^netlink_dump", "^socketpair", "^connect", "^ioctl", "^sys_socketpair", "^sys_connect", "^sys_ioctl", "__do_fault", "do_page_fault", "^page_fault$",
        "__fput", "task_work_run", "exit_to_usermode", "smp_call_function", "tasklet_action", "tasklet_hi_action",
    ];

    /// <summary>How a task waits, not for what.</summary>
    private static readonly string[] s_waiting =
    [
        "sched", "_lock", "_slowlock", "down", "rwsem", "completion", "kthread", "wait", "synchronize", "context_switch", "__switch_to", "cancel_delayed_work", "rcu_barrier",
    ];

    /// <summary>A function's name without what the compiler adds: <c>.isra.0</c>, <c>.constprop.0</c>, <c>.part.0</c>, <c>.cold</c>.</summary>
    public static string Plain(ReadOnlySpan<char> name)
    {
        int dot = name.IndexOf('.');
        return (dot > 0 ? name[..dot] : name).ToString();
    }

    /// <summary>Whether a name is one of a list's.</summary>
    public static bool IsAny(string name, string[] parts)
    {
        foreach (string part in parts)
        {
            if (Fits(name, part))
                return true;
        }

        return false;
    }

    /// <summary>The names that may stand in a title, in their order.</summary>
    public static List<string> Candidates(List<string> names, string[] alsoMachinery)
    {
        var left = new List<string>();
        foreach (string name in names)
        {
            if (!IsAny(name, s_machinery) && !IsAtomic(name) && !IsAny(name, alsoMachinery))
                left.Add(WithoutSystemCallPrefix(name));
        }

        return left;
    }

    /// <summary>The function that a task that hangs is named after: what everybody waits for, else who waits.</summary>
    public static string? OfHungTask(List<string> candidates)
    {
        foreach (string name in candidates)
        {
            if (name.Contains("rtnl_lock", StringComparison.Ordinal))
                return name;
            if (IsAny(name, ["synchronize_rcu", "synchronize_srcu", "synchronize_net", "synchronize_sched"]))
                return "synchronize_rcu";
        }

        foreach (string name in candidates)
        {
            if (!IsAny(name, s_waiting))
                return name;
        }

        return null;
    }

    /// <summary>
    /// The function that a stall is named after. The innermost one is a matter of chance, as the code loops through many; so the one that was
    /// given the work is taken.
    /// </summary>
    public static string? OfStall(List<string> candidates)
    {
        string? before = null;
        foreach (string name in candidates)
        {
            if (IsAny(name, s_dispatchers))
                return name.Contains("smp_call_function", StringComparison.Ordinal) ? "smp_call_function" : before ?? name;
            before = name;
        }

        return candidates.Count > 0 ? candidates[0] : null;
    }

    private static string WithoutSystemCallPrefix(string name)
    {
        int longest = 0;
        foreach (string prefix in s_systemCallPrefixes)
        {
            if (prefix.Length > longest && prefix.Length < name.Length && name.StartsWith(prefix, StringComparison.Ordinal))
                longest = prefix.Length;
        }

        return name[longest..];
    }

    /// <summary>Atomic operations have many names, all of one form.</summary>
    private static bool IsAtomic(string name)
    {
        int at = name.IndexOf("atomic", StringComparison.Ordinal);
        if (at < 0)
            return name.Contains("_once_", StringComparison.Ordinal) && name.Contains("nocheck", StringComparison.Ordinal);
        string rest = name[(at + 6)..];
        if (rest.StartsWith("64", StringComparison.Ordinal))
            rest = rest[2..];
        return IsAny(rest, ["^_dec", "^_inc", "^_read", "^_set", "^_or", "^_xor", "^_and", "^_add", "^_sub", "^_fetch", "^_xchg", "^_cmpxchg", "^_try"]);
    }

    private static bool Fits(string name, string part)
    {
        bool start = part[0] == '^';
        bool end = part[^1] == '$';
        ReadOnlySpan<char> text = part.AsSpan((start ? 1 : 0)..(end ? part.Length - 1 : part.Length));
        return start && end ? name.AsSpan().SequenceEqual(text)
            : start ? name.AsSpan().StartsWith(text)
            : end ? name.AsSpan().EndsWith(text)
            : name.AsSpan().Contains(text, StringComparison.Ordinal);
    }
}
