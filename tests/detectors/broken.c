// SPDX-License-Identifier: GPL-2.0-only
/*
 * A module with one bug of each kind, to see that what is to catch them does:
 * insmod broken.ko bug=NAME. Never part of rmem.ko; for VMs that are thrown away.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kfence.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/vmalloc.h>

static char *bug = "";
module_param(bug, charp, 0);

/* Where what is read goes, so that it is read. */
static volatile int sink;

static void use_after_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	kfree(p);
	OPTIMIZER_HIDE_VAR(p);
	sink = p[8];
}

static void out_of_bounds(void)
{
	char *p = kmalloc(60, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	p[60] = 1;
	kfree(p);
}

/* What a stock kernel with slub_debug, page_poison and KFENCE notices. */

static void past_the_end(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	p[64] = 1;
	kfree(p);
}

static void written_after_free(void)
{
	static void *all[512];
	char *p = kmalloc(64, GFP_KERNEL);
	int i;

	kfree(p);
	OPTIMIZER_HIDE_VAR(p);
	p[8] = 1;
	/* It is seen when somebody gets it next. */
	for (i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = kmalloc(64, GFP_KERNEL);
	for (i = 0; i < ARRAY_SIZE(all); i++)
		kfree(all[i]);
}

static void page_written_after_free(void)
{
	struct page *page = alloc_page(GFP_KERNEL);
	char *p = page_address(page);

	__free_page(page);
	OPTIMIZER_HIDE_VAR(p);
	p[8] = 1;
	__free_page(alloc_page(GFP_KERNEL));
}

static void use_after_sampled_free(void)
{
	unsigned long end = jiffies + 30 * HZ;
	bool sampled;
	char *p;

	do {
		p = kmalloc(64, GFP_KERNEL);
		sampled = is_kfence_address(p);
		kfree(p);
		cond_resched();
	} while (!sampled && time_before(jiffies, end));
	OPTIMIZER_HIDE_VAR(p);
	if (sampled)
		sink = p[8];
}

static void double_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL), *again = p;

	OPTIMIZER_HIDE_VAR(again);
	kfree(p);
	kfree(again);
}

static void stack_out_of_bounds(void)
{
	char bytes[16] = { 0 }, *p = bytes;

	OPTIMIZER_HIDE_VAR(p);
	sink = p[sizeof(bytes)];
}

static void vmalloc_out_of_bounds(void)
{
	char *p = vmalloc(PAGE_SIZE - 16);

	OPTIMIZER_HIDE_VAR(p);
	sink = p[PAGE_SIZE - 8];
	vfree(p);
}

static void freed_page(void)
{
	struct page *page = alloc_page(GFP_KERNEL);
	char *p = page_address(page);

	__free_page(page);
	OPTIMIZER_HIDE_VAR(p);
	sink = p[8];
}

static void freed_page_twice(void)
{
	struct page *page = alloc_page(GFP_KERNEL), *again = page;

	OPTIMIZER_HIDE_VAR(again);
	__free_page(page);
	__free_page(again);
}

static void leak(void)
{
	char *p = kmalloc(192, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	sink = !p;
}

static void leaked_page(void)
{
	sink = !alloc_page(GFP_KERNEL);
}

static void bad_shift(void)
{
	int by = 40;

	OPTIMIZER_HIDE_VAR(by);
	sink = 1 << by;
}

static void bad_index(void)
{
	static int numbers[4];
	int at = 4;

	OPTIMIZER_HIDE_VAR(at);
	sink = numbers[at];
}

static void refcount(void)
{
	refcount_t count = REFCOUNT_INIT(1);

	refcount_dec(&count);
	refcount_dec(&count);
}

static void freed_timer_expires(struct timer_list *timer)
{
}

static void freed_timer(void)
{
	struct timer_list *timer = kmalloc(sizeof(*timer), GFP_KERNEL);

	timer_setup(timer, freed_timer_expires, 0);
	mod_timer(timer, jiffies + HZ);
	kfree(timer);
}

static void list_twice(void)
{
	LIST_HEAD(list);
	struct list_head entry;

	list_add(&entry, &list);
	__list_del_entry(&entry);
	__list_del_entry(&entry);
}

static DEFINE_SPINLOCK(spin);

static void sleep_under_spinlock(void)
{
	spin_lock(&spin);
	kfree(kmalloc(64, GFP_KERNEL));
	spin_unlock(&spin);
}

static void schedule_under_spinlock(void)
{
	spin_lock(&spin);
	msleep(20);
	spin_unlock(&spin);
}

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(other);

static void lock_inversion(void)
{
	mutex_lock(&one);
	mutex_lock(&other);
	mutex_unlock(&other);
	mutex_unlock(&one);
	mutex_lock(&other);
	mutex_lock(&one);
	mutex_unlock(&one);
	mutex_unlock(&other);
}

static void lock_kept(void)
{
	mutex_lock(&one);
}

static void rcu_unlocked(void)
{
	static int __rcu *pointer;

	sink = !rcu_dereference(pointer);
}

static unsigned int raced;

static int racer(void *arg)
{
	while (!kthread_should_stop()) {
		raced++;
		barrier();
		cond_resched();
	}
	return 0;
}

static void race(void)
{
	struct task_struct *threads[2];
	int i;

	for (i = 0; i < 2; i++)
		threads[i] = kthread_run(racer, NULL, "racer-%d", i);
	msleep(5000);
	for (i = 0; i < 2; i++)
		if (!IS_ERR(threads[i]))
			kthread_stop(threads[i]);
}

static const struct {
	const char *name;
	void (*run)(void);
} bugs[] = {
	{ "data-race", race },
	{ "use-after-free", use_after_free },
	{ "out-of-bounds", out_of_bounds },
	{ "double-free", double_free },
	{ "stack-out-of-bounds", stack_out_of_bounds },
	{ "vmalloc-out-of-bounds", vmalloc_out_of_bounds },
	{ "freed-page", freed_page },
	{ "past-the-end", past_the_end },
	{ "written-after-free", written_after_free },
	{ "page-written-after-free", page_written_after_free },
	{ "use-after-sampled-free", use_after_sampled_free },
	{ "freed-page-twice", freed_page_twice },
	{ "leak", leak },
	{ "leaked-page", leaked_page },
	{ "bad-shift", bad_shift },
	{ "bad-index", bad_index },
	{ "refcount", refcount },
	{ "freed-timer", freed_timer },
	{ "list-twice", list_twice },
	{ "sleep-under-spinlock", sleep_under_spinlock },
	{ "schedule-under-spinlock", schedule_under_spinlock },
	{ "lock-inversion", lock_inversion },
	{ "lock-kept", lock_kept },
	{ "rcu-unlocked", rcu_unlocked },
};

static int __init broken_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (!strcmp(bug, bugs[i].name)) {
			bugs[i].run();
			return 0;
		}
	}
	return -EINVAL;
}
module_init(broken_init);

static void __exit broken_exit(void)
{
}
module_exit(broken_exit);

MODULE_DESCRIPTION("one bug of each kind");
MODULE_LICENSE("GPL");
