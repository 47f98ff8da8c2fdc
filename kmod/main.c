// SPDX-License-Identifier: GPL-2.0-only
/*
 * Module entry and exit, in reverse order of each other.
 */
#include <linux/module.h>

#include "internal.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* Regions are made, unmade and served under it. */
DEFINE_MUTEX(rmem_mutex);

/*
 * rmem_copy_args() - read an ioctl's extensible struct
 * @args: kernel's version of it, @size bytes; its first field is a u32 size
 * @size: sizeof(*args)
 * @first_size: size of the first version ever released
 * @uarg: the ioctl's argument
 * @usize: out: size of the caller's version, for rmem_copy_result()
 *
 * Return: 0, EINVAL (too short), E2BIG (longer, with a tail that is not zero)
 * or EFAULT, negative.
 */
int rmem_copy_args(void *args, size_t size, size_t first_size, unsigned long uarg, u32 *usize)
{
	int err;

	if (get_user(*usize, (u32 __user *)uarg))
		return -EFAULT;
	if (*usize < first_size)
		return -EINVAL;
	if (*usize > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(args, size, (void __user *)uarg, *usize);
	if (err)
		return err;
	/* whatever another thread has written there meanwhile */
	*(u32 *)args = *usize;
	return 0;
}

static int __init rmem_init(void)
{
	int err;

	err = rmem_request_init();
	if (err)
		return err;
	err = rmem_region_init();
	if (err)
		goto undo_request;
	err = rmem_chrdev_init();
	if (err)
		goto undo_region;
	err = rmem_fs_init();
	if (err)
		goto undo_chrdev;
	err = rmem_netlink_init();
	if (err)
		goto undo_fs;
	rmem_debugfs_init();
	return 0;

undo_fs:
	rmem_fs_exit();
undo_chrdev:
	rmem_chrdev_exit();
undo_region:
	rmem_region_exit();
undo_request:
	rmem_request_exit();
	return err;
}

static void __exit rmem_exit(void)
{
	rmem_debugfs_exit();
	rmem_netlink_exit();
	rmem_fs_exit();
	rmem_chrdev_exit();
	rmem_region_exit();
	rmem_request_exit();
}

module_init(rmem_init);
module_exit(rmem_exit);

MODULE_DESCRIPTION("Memory that lives on another machine, mapped through the page cache");
MODULE_AUTHOR("The rmem authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_ALIAS_FS("rmemfs");
MODULE_ALIAS("devname:rmem_control");
