// SPDX-License-Identifier: GPL-2.0
// A module that does to its kernel what boot tests want to see: insmod vmm-crash.ko what=warn|bug|oops|panic|spin|halt, or what=exit code=N
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

static char *what = "";
module_param(what, charp, 0);

static uint code;
module_param(code, uint, 0);

static noinline void vmm_crash_warn(void) { WARN(1, "a warning that was asked for\n"); }

static noinline void vmm_crash_bug(void) { BUG(); }

static noinline void vmm_crash_oops(void) { *(volatile int *)NULL = 1; }

static noinline void vmm_crash_spin(void)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static noinline void vmm_crash_halt(void)
{
	local_irq_disable();
	for (;;)
		asm volatile("hlt");
}

static int __init vmm_crash_init(void)
{
	if (!strcmp(what, "warn"))
		vmm_crash_warn();
	else if (!strcmp(what, "bug"))
		vmm_crash_bug();
	else if (!strcmp(what, "oops"))
		vmm_crash_oops();
	else if (!strcmp(what, "panic"))
		panic("a panic that was asked for");
	else if (!strcmp(what, "spin"))
		vmm_crash_spin();
	else if (!strcmp(what, "halt"))
		vmm_crash_halt();
	else if (!strcmp(what, "exit"))
		outl(code, 0xF4);
	return -EINVAL;
}

module_init(vmm_crash_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Crashes that boot tests ask for");
