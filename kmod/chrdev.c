// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device nodes: /dev/rmem, /dev/rmem-NAME, /dev/rmem_control, and the table of
 * the daemon's ioctls. No policy here.
 */
#include <linux/cdev.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * /dev/rmem_control
 */

static atomic_t channel_generation = ATOMIC_INIT(0);

static int control_open(struct inode *inode, struct file *file)
{
	/* misc_open() leaves its own pointer there */
	file->private_data = NULL;
	return 0;
}

static int control_release(struct inode *inode, struct file *file)
{
	struct rmem_channel *channel = file->private_data;
	struct rmem_region *region, *next;

	if (!channel)
		return 0;
	mutex_lock(&rmem_mutex);
	list_for_each_entry_safe(region, next, &channel->regions, served)
		rmem_region_abandon(region);
	mutex_unlock(&rmem_mutex);
	rmem_ring_free(channel);
	kfree(channel);
	return 0;
}

static int control_setup(struct file *file, unsigned long arg)
{
	struct rmem_ioc_setup setup;
	struct rmem_channel *channel;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(setup) != 32);
	err = rmem_copy_args(&setup, sizeof(setup), sizeof(setup), arg, &usize);
	if (err)
		return err;
	if (setup.flags || setup.uapi_major != RMEM_UAPI_MAJOR)
		return -EOPNOTSUPP;
	if (!is_power_of_2(setup.ring_entries) || setup.ring_entries < 64 ||
	    setup.ring_entries > 65536)
		return -EINVAL;

	channel = kzalloc(sizeof(*channel), GFP_KERNEL_ACCOUNT);
	if (!channel)
		return -ENOMEM;
	err = rmem_ring_alloc(channel, setup.ring_entries);
	if (err)
		goto free;
	INIT_LIST_HEAD(&channel->regions);
	init_waitqueue_head(&channel->wait);
	spin_lock_init(&channel->lock);
	INIT_LIST_HEAD(&channel->notes);
	INIT_LIST_HEAD(&channel->urgent);
	INIT_LIST_HEAD(&channel->normal);
	channel->generation = atomic_inc_return(&channel_generation);
	channel->pid = task_tgid_nr(current);

	setup.size = usize;
	setup.uapi_minor = RMEM_UAPI_MINOR;
	setup.features &= RMEM_FEATURES_KNOWN;
	setup.ring_bytes = channel->ring_bytes;
	setup.generation = channel->generation;
	err = -EFAULT;
	if (copy_to_user((void __user *)arg, &setup, sizeof(setup)))
		goto free_ring;
	err = -EISCONN;
	if (cmpxchg(&file->private_data, NULL, channel))
		goto free_ring;
	return 0;

free_ring:
	rmem_ring_free(channel);
free:
	kfree(channel);
	return err;
}

/* The region of an ioctl, referenced, if this channel serves it. */
static struct rmem_region *served_region(struct rmem_channel *channel, u32 id)
{
	struct rmem_region *region = rmem_region_get(id);

	if (!region)
		return ERR_PTR(-ENOENT);
	if (READ_ONCE(region->channel) != channel) {
		rmem_region_put(region);
		return ERR_PTR(-ENOTCONN);
	}
	return region;
}

static int control_serve(struct rmem_channel *channel, u32 id)
{
	struct rmem_region *region;
	int err;

	if (mutex_lock_killable(&rmem_mutex))
		return -EINTR;
	region = rmem_region_get(id);
	err = region ? rmem_region_serve(region, channel) : -ENOENT;
	mutex_unlock(&rmem_mutex);
	if (region)
		rmem_region_put(region);
	return err;
}

static int control_push(struct rmem_channel *channel, u32 id)
{
	struct rmem_region *region = served_region(channel, id);
	int err;

	if (IS_ERR(region))
		return PTR_ERR(region);
	err = rmem_region_push(region);
	rmem_region_put(region);
	return err;
}

static int control_region(struct rmem_channel *channel, unsigned int nr, unsigned long arg)
{
	struct rmem_ioc_region args;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 16);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags || args.__reserved)
		return -EOPNOTSUPP;
	if (nr == _IOC_NR(RMEM_IOC_SERVE))
		return control_serve(channel, args.region_id);
	return control_push(channel, args.region_id);
}

static int control_fill(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_fill args;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 40);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags & ~(RMEM_FILL_MARK | RMEM_FILL_ZERO | RMEM_FILL_EARLY))
		return -EOPNOTSUPP;
	if (args.flags & RMEM_FILL_EARLY)
		return rmem_fetch_fill_early(channel, &args);
	return rmem_fetch_fill(channel, &args);
}

static int control_receive(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_receive args;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 56);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags & ~(RMEM_FILL_MARK | RMEM_RECEIVE_CHECKSUM) || args.__reserved)
		return -EOPNOTSUPP;
	args.received = 0;
	args.error = 0;
	err = rmem_fetch_receive(channel, &args);
	/* how far it came is told with every result */
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : err;
}

static int complete_one(struct rmem_channel *channel, u64 cookie, u32 error, u32 *unknown)
{
	struct rmem_req *req = rmem_request_find(channel, cookie);
	bool known;

	if (!req) {
		(*unknown)++;
		return 0;
	}
	if (req->op == RMEM_OP_FETCH)
		known = error == EIO || error == ESTALE || error == ECANCELED;
	else
		known = !error || error == EAGAIN || error == ENOSPC || error == EIO ||
			error == EROFS || error == ESTALE;
	if (known && !rmem_request_complete(req, -(int)error))
		(*unknown)++;
	rmem_request_put(req);
	return known ? 0 : -EINVAL;
}

static int control_complete(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_complete args;
	u64 __user *cookies;
	u32 usize, i;
	int err;

	BUILD_BUG_ON(sizeof(args) != 32);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags || args.__reserved)
		return -EOPNOTSUPP;
	if (!args.count || args.count > 4096)
		return -EINVAL;
	cookies = u64_to_user_ptr(args.cookies);
	args.unknown = 0;
	for (i = 0; i < args.count; i++) {
		u64 cookie;

		if (get_user(cookie, &cookies[i]))
			return -EFAULT;
		err = complete_one(channel, cookie, args.error, &args.unknown);
		if (err)
			return err;
		cond_resched();
	}
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : 0;
}

static int control_writeout(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_writeout args;
	struct rmem_req *req;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 56);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags || args.__reserved)
		return -EOPNOTSUPP;
	req = rmem_request_find(channel, args.cookie);
	if (!req)
		return -ENOENT;
	err = req->op == RMEM_OP_WRITE ? rmem_pages_writeout(req, &args) : -EINVAL;
	rmem_request_put(req);
	if (err)
		return err;
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : 0;
}

static int control_runs(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_runs args;
	struct rmem_req *req;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 32);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags || args.__reserved)
		return -EOPNOTSUPP;
	req = rmem_request_find(channel, args.cookie);
	if (!req)
		return -ENOENT;
	err = req->op == RMEM_OP_WRITE ? rmem_pages_runs(req, &args) : -EINVAL;
	rmem_request_put(req);
	if (err)
		return err;
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : 0;
}

static int control_send(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_send args;
	struct rmem_region *region;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 48);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags || args.__reserved)
		return -EOPNOTSUPP;
	args.sent = 0;
	args.error = 0;
	region = served_region(channel, args.region_id);
	if (IS_ERR(region)) {
		err = PTR_ERR(region);
	} else {
		err = rmem_region_send(region, &args);
		rmem_region_put(region);
	}
	/* how far it came is told with every result */
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : err;
}

static int control_prefetch(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_prefetch args;
	struct rmem_region *region;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 32);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags & ~RMEM_PREFETCH_MAKE_ROOM)
		return -EOPNOTSUPP;
	region = served_region(channel, args.region_id);
	if (IS_ERR(region))
		return PTR_ERR(region);
	err = rmem_prefetch(region, &args);
	rmem_region_put(region);
	if (err)
		return err;
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : 0;
}

static int control_state(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_state args;
	struct rmem_region *region;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 144);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags)
		return -EOPNOTSUPP;
	if (strnlen(args.reason, sizeof(args.reason)) == sizeof(args.reason) ||
	    (args.state != RMEM_STATE_ACTIVE && args.state != RMEM_STATE_DEGRADED &&
	     args.state != RMEM_STATE_FAILED))
		return -EINVAL;
	region = served_region(channel, args.region_id);
	if (IS_ERR(region))
		return PTR_ERR(region);
	err = rmem_region_set_state(region, channel, args.state, args.reason);
	rmem_region_put(region);
	return err;
}

static int control_lane(struct rmem_channel *channel, unsigned long arg)
{
	struct rmem_ioc_lane args;
	struct rmem_region *region;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 88);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags & ~RMEM_LANE_TAKE || args.__reserved)
		return -EOPNOTSUPP;
	region = served_region(channel, args.region_id);
	if (IS_ERR(region))
		return PTR_ERR(region);
	err = rmem_region_lane(region, channel, &args);
	rmem_region_put(region);
	if (err)
		return err;
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : 0;
}

static long control_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct rmem_channel *channel = READ_ONCE(file->private_data);
	unsigned int nr = rmem_ioctl_nr(cmd);

	switch (nr) {
	case _IOC_NR(RMEM_IOC_SETUP) ... _IOC_NR(RMEM_IOC_SEND):
	case _IOC_NR(RMEM_IOC_LANE) ... _IOC_NR(RMEM_IOC_RUNS):
		break;
	default:
		return -ENOTTY;
	}
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	if (nr == _IOC_NR(RMEM_IOC_SETUP))
		return channel ? -EISCONN : control_setup(file, arg);
	if (!channel)
		return -ENOTCONN;
	switch (nr) {
	case _IOC_NR(RMEM_IOC_SERVE):
	case _IOC_NR(RMEM_IOC_PUSH):
		return control_region(channel, nr, arg);
	case _IOC_NR(RMEM_IOC_FILL):
		return control_fill(channel, arg);
	case _IOC_NR(RMEM_IOC_RECEIVE):
		return control_receive(channel, arg);
	case _IOC_NR(RMEM_IOC_COMPLETE):
		return control_complete(channel, arg);
	case _IOC_NR(RMEM_IOC_WRITEOUT):
		return control_writeout(channel, arg);
	case _IOC_NR(RMEM_IOC_RUNS):
		return control_runs(channel, arg);
	case _IOC_NR(RMEM_IOC_SEND):
		return control_send(channel, arg);
	case _IOC_NR(RMEM_IOC_PREFETCH):
		return control_prefetch(channel, arg);
	case _IOC_NR(RMEM_IOC_LANE):
		return control_lane(channel, arg);
	default:
		return control_state(channel, arg);
	}
}

static __poll_t control_poll(struct file *file, struct poll_table_struct *wait)
{
	struct rmem_channel *channel = READ_ONCE(file->private_data);

	if (!channel)
		return EPOLLERR;
	poll_wait(file, &channel->wait, wait);
	return rmem_ring_poll(channel) ? EPOLLIN | EPOLLRDNORM : 0;
}

static int control_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct rmem_channel *channel = READ_ONCE(file->private_data);

	return channel ? rmem_ring_mmap(channel, vma) : -ENOTCONN;
}

static const struct file_operations control_fops = {
	.owner		= THIS_MODULE,
	.open		= control_open,
	.release	= control_release,
	.unlocked_ioctl	= control_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.poll		= control_poll,
	.mmap		= control_mmap,
	.llseek		= noop_llseek,
};

/* Is it an open, writable /dev/rmem_control? */
bool rmem_chrdev_is_control(struct file *file)
{
	return file->f_op == &control_fops && (file->f_mode & FMODE_WRITE);
}

static struct miscdevice control_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "rmem_control",
	.fops	= &control_fops,
	/* the group is rmem's, by rmemd or a udev rule */
	.mode	= 0660,
};

/*
 * /dev/rmem
 */

static int attach_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return 0;
}

static long attach_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct rmem_ioc_attach args;
	struct rmem_region *region;
	u32 usize;
	int err;

	if (rmem_ioctl_nr(cmd) != _IOC_NR(RMEM_IOC_ATTACH))
		return rmem_file_ioctl(file, cmd, arg);

	BUILD_BUG_ON(sizeof(args) != 80);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags)
		return -EOPNOTSUPP;
	if (strnlen(args.name, sizeof(args.name)) > RMEM_NAME_MAX ||
	    !rmem_name_is_valid(args.name))
		return -EINVAL;
	if (READ_ONCE(file->private_data))
		return -EISCONN;
	region = rmem_region_get_by_name(args.name, strlen(args.name));
	if (!region)
		return -ENOENT;
	err = rmem_region_open(region, file);
	rmem_region_put(region);
	return err;
}

static const struct file_operations attach_fops = {
	.owner		= THIS_MODULE,
	.open		= attach_open,
	.release	= rmem_file_release,
	.unlocked_ioctl	= attach_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.read_iter	= rmem_read_iter,
	.write_iter	= rmem_write_iter,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
	.llseek		= rmem_llseek,
	.mmap		= rmem_mmap,
	.fsync		= rmem_fsync,
};

static struct miscdevice attach_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "rmem",
	.fops	= &attach_fops,
	.mode	= 0666,
};

/*
 * /dev/rmem-NAME
 */

static dev_t node_first;
static struct cdev node_cdev;
static struct class *node_class;

static int node_open(struct inode *inode, struct file *file)
{
	struct rmem_region *region = rmem_region_get(iminor(inode));
	int err;

	if (!region)
		return -ENXIO;
	file->private_data = NULL;
	err = rmem_region_open(region, file);
	rmem_region_put(region);
	return err == -ENODEV ? -ENXIO : err;
}

static const struct file_operations node_fops = {
	.owner		= THIS_MODULE,
	.open		= node_open,
	.release	= rmem_file_release,
	.unlocked_ioctl	= rmem_file_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.read_iter	= rmem_read_iter,
	.write_iter	= rmem_write_iter,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
	.llseek		= rmem_llseek,
	.mmap		= rmem_mmap,
	.fsync		= rmem_fsync,
};

static char *node_devnode(rmem_devnode_device *dev, umode_t *mode, kuid_t *uid, kgid_t *gid)
{
	struct rmem_region *region = dev_get_drvdata(dev);

	if (!region)
		return NULL;
	if (mode)
		*mode = region->mode;
	if (uid)
		*uid = region->uid;
	if (gid)
		*gid = region->gid;
	return NULL;
}

static const struct device_type node_type = {
	.name		= "rmem_region",
	.devnode	= node_devnode,
};

static void node_release(struct device *dev)
{
	kfree(dev);
}

int rmem_chrdev_add(struct rmem_region *region)
{
	struct device *dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	int err;

	if (!dev)
		return -ENOMEM;
	device_initialize(dev);
	dev->devt = node_first + region->id;
	dev->class = node_class;
	dev->type = &node_type;
	dev->release = node_release;
	dev_set_drvdata(dev, region);
	err = dev_set_name(dev, "rmem-%s", region->name);
	if (!err)
		err = device_add(dev);
	if (err) {
		put_device(dev);
		return err;
	}
	region->dev = dev;
	return 0;
}

void rmem_chrdev_del(struct rmem_region *region)
{
	device_del(region->dev);
	put_device(region->dev);
}

int rmem_chrdev_init(void)
{
	int err;

	err = alloc_chrdev_region(&node_first, 0, MINORMASK + 1, "rmem");
	if (err)
		return err;
	node_class = rmem_class_create("rmem");
	if (IS_ERR(node_class)) {
		err = PTR_ERR(node_class);
		goto unregister;
	}
	cdev_init(&node_cdev, &node_fops);
	node_cdev.owner = THIS_MODULE;
	err = cdev_add(&node_cdev, node_first, MINORMASK + 1);
	if (err)
		goto destroy_class;
	err = misc_register(&attach_device);
	if (err)
		goto del_cdev;
	err = misc_register(&control_device);
	if (err)
		goto deregister;
	return 0;

deregister:
	misc_deregister(&attach_device);
del_cdev:
	cdev_del(&node_cdev);
destroy_class:
	class_destroy(node_class);
unregister:
	unregister_chrdev_region(node_first, MINORMASK + 1);
	return err;
}

void rmem_chrdev_exit(void)
{
	misc_deregister(&control_device);
	misc_deregister(&attach_device);
	cdev_del(&node_cdev);
	class_destroy(node_class);
	unregister_chrdev_region(node_first, MINORMASK + 1);
}
