// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regions: made, opened, served, unmade.
 *
 * Each has a superblock of its own on a private mount, for three things that
 * hang on it: a BDI with its own dirty limits, sync(2), and the module's
 * reference (a region keeps the module loaded, a loaded module alone does not).
 */
#include <linux/backing-dev.h>
#include <linux/ctype.h>
#include <linux/memcontrol.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/writeback.h>

#include "internal.h"
#include "trace.h"

#define RMEM_REGION_MAGIC 0x6d656d72	/* "rmem" */

/* A region's share of the dirty pages that the system allows, in percent. */
#define RMEM_DIRTY_RATIO 50

DEFINE_XARRAY_FLAGS(rmem_regions, XA_FLAGS_ALLOC1);
static u32 rmem_region_next_id;

static int region_init_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, RMEM_REGION_MAGIC) ? 0 : -ENOMEM;
}

static struct file_system_type rmem_region_fs = {
	.owner			= THIS_MODULE,
	.name			= "rmem_region",
	.init_fs_context	= region_init_fs_context,
	.kill_sb		= kill_anon_super,
};

int rmem_region_init(void)
{
	return 0;
}

void rmem_region_exit(void)
{
	WARN_ON_ONCE(!xa_empty(&rmem_regions));
	xa_destroy(&rmem_regions);
	/* regions are freed by RCU */
	rcu_barrier();
}

bool rmem_name_is_valid(const char *name)
{
	size_t len = strlen(name), i;

	if (!len || len > RMEM_NAME_MAX || !isalnum(name[0]) || !isascii(name[0]))
		return false;
	for (i = 1; i < len; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("_.-", name[i])))
			return false;
	return true;
}

/* None, or room for what one instruction or one write may need at once, and to spare. */
bool rmem_limit_is_valid(u64 limit, u32 chunk_bytes)
{
	return !limit || limit >= max_t(u64, RMEM_LIMIT_MIN, RMEM_LIMIT_CHUNKS * (u64)chunk_bytes);
}

static bool config_is_valid(const struct rmem_region_config *config)
{
	return rmem_name_is_valid(config->name) &&
	       config->size && config->size <= MAX_LFS_FILESIZE - RMEM_CHUNK_MAX &&
	       is_power_of_2(config->chunk_bytes) && config->chunk_bytes >= PAGE_SIZE &&
	       config->chunk_bytes <= RMEM_CHUNK_MAX &&
	       config->folio_order <= ilog2(config->chunk_bytes) - PAGE_SHIFT &&
	       uid_valid(config->uid) && gid_valid(config->gid) && !(config->mode & ~0777) &&
	       config->fault_timeout_ms && config->sync_timeout_ms &&
	       config->on_loss <= RMEM_ON_LOSS_KILL && config->blob_bytes <= RMEM_BLOB_MAX &&
	       rmem_limit_is_valid(config->resident_limit, config->chunk_bytes) &&
	       rmem_limit_is_valid(config->dirty_limit, config->chunk_bytes);
}

static void region_free_rcu(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct rmem_region, rcu));
}

/* In a context that may sleep; the inode lives as long as anybody may look at it. */
static void region_release(struct kref *ref)
{
	struct rmem_region *region = container_of(ref, struct rmem_region, ref);

	if (region->inode) {
		iput(region->inode);
		kern_unmount(region->mnt);
	}
	rmem_dirty_free(region);
	kfree(region->blob);
	kfree(region->source);
	kfree(region->instance);
	call_rcu(&region->rcu, region_free_rcu);
}

void rmem_region_put(struct rmem_region *region)
{
	kref_put(&region->ref, region_release);
}

static struct rmem_region *region_alloc(const struct rmem_region_config *config)
{
	struct rmem_region *region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);

	if (!region)
		return NULL;
	kref_init(&region->ref);
	INIT_LIST_HEAD(&region->served);
	spin_lock_init(&region->lock);
	region->fetches = RB_ROOT;
	INIT_LIST_HEAD(&region->fetch_list);
	INIT_LIST_HEAD(&region->write_list);
	INIT_LIST_HEAD(&region->taking_list);
	INIT_LIST_HEAD(&region->punches);
	INIT_LIST_HEAD(&region->entering);
	init_waitqueue_head(&region->answer_wait);
	init_waitqueue_head(&region->write_wait);
	INIT_DELAYED_WORK(&region->deadline_work, rmem_request_deadline);
	INIT_WORK(&region->push_work, rmem_room_push);
	mutex_init(&region->evict_mutex);
	spin_lock_init(&region->dirty_lock);
	xa_init(&region->dirty);

	strscpy(region->name, config->name, sizeof(region->name));
	region->size = config->size;
	region->nr_pages = DIV_ROUND_UP(config->size, PAGE_SIZE);
	region->chunk_bytes = config->chunk_bytes;
	region->chunk_order = ilog2(config->chunk_bytes) - PAGE_SHIFT;
	region->folio_order = config->folio_order;
	region->flags = config->flags;
	region->uid = config->uid;
	region->gid = config->gid;
	region->mode = config->mode;
	region->fault_timeout_ms = config->fault_timeout_ms;
	region->sync_timeout_ms = config->sync_timeout_ms;
	region->on_loss = config->on_loss;
	region->resident_limit = config->resident_limit;
	region->dirty_limit = config->dirty_limit;
	region->push_threshold = config->push_threshold;
	region->state = RMEM_STATE_QUIESCED;
	get_random_bytes(region->writer, sizeof(region->writer));

	region->source = kstrdup(config->source, GFP_KERNEL_ACCOUNT);
	region->instance = kstrdup(config->instance, GFP_KERNEL_ACCOUNT);
	if (config->blob_bytes)
		region->blob = kmemdup(config->blob, config->blob_bytes, GFP_KERNEL_ACCOUNT);
	region->blob_bytes = config->blob_bytes;
	if (!region->source || !region->instance || (config->blob_bytes && !region->blob)) {
		rmem_region_put(region);
		return NULL;
	}
	return region;
}

/* The private mount, its BDI, and the inode that owns the page cache. */
static int region_make_inode(struct rmem_region *region)
{
	struct super_block *sb;
	struct inode *inode;
	int err;

	region->mnt = kern_mount(&rmem_region_fs);
	if (IS_ERR(region->mnt))
		return PTR_ERR(region->mnt);
	sb = region->mnt->mnt_sb;
	err = super_setup_bdi_name(sb, "rmem-%u", region->id);
	if (err)
		goto unmount;
	sb->s_bdi->ra_pages = 0;
	/*
	 * A hung daemon must not take every writer of the system with it. Not
	 * strictlimit: a new BDI's share begins at nothing, so that every page
	 * would be pushed as soon as it is written.
	 */
	bdi_set_max_ratio(sb->s_bdi, RMEM_DIRTY_RATIO);
	sb->s_iflags |= SB_I_CGROUPWB;
	sb->s_maxbytes = MAX_LFS_FILESIZE;

	inode = new_inode(sb);
	err = -ENOMEM;
	if (!inode)
		goto unmount;
	inode->i_ino = region->id;
	inode->i_mode = S_IFREG | region->mode;
	inode->i_uid = region->uid;
	inode->i_gid = region->gid;
	inode->i_private = region;
	i_size_write(inode, region->size);
	/* the flusher passes unhashed inodes by */
	inode_fake_hash(inode);
	inode->i_mapping->a_ops = &rmem_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER_MOVABLE & ~__GFP_FS);
	mapping_set_large_folios(inode->i_mapping);
	region->inode = inode;
	return 0;

unmount:
	kern_unmount(region->mnt);
	return err;
}

const char *rmem_state_name(u32 state)
{
	static const char * const names[] = {
		[RMEM_STATE_ACTIVE] = "active",
		[RMEM_STATE_DEGRADED] = "degraded",
		[RMEM_STATE_QUIESCED] = "quiesced",
		[RMEM_STATE_FAILED] = "failed",
	};

	return names[state];
}

static void region_enter(struct rmem_region *region, u32 state, const char *reason)
{
	lockdep_assert_held(&region->lock);
	region->state = state;
	strscpy(region->reason, reason, sizeof(region->reason));
	if (state == RMEM_STATE_ACTIVE)
		region->lost = false;
	trace_rmem_state(region, state);
}

/*
 * rmem_region_new() - make a region, with its node
 *
 * Caller holds rmem_mutex. Return: a region that the caller may look at until
 * it lets go of rmem_mutex, or an ERR_PTR: EINVAL, EOPNOTSUPP, EEXIST, ENOMEM, ENOSPC.
 */
struct rmem_region *rmem_region_new(const struct rmem_region_config *config)
{
	struct rmem_region *region;
	int err;

	lockdep_assert_held(&rmem_mutex);
	if (config->flags & ~RMEM_REGION_READ_ONLY)
		return ERR_PTR(-EOPNOTSUPP);
	if (!config_is_valid(config))
		return ERR_PTR(-EINVAL);
	region = rmem_region_get_by_name(config->name, strlen(config->name));
	if (region) {
		rmem_region_put(region);
		return ERR_PTR(-EEXIST);
	}
	region = region_alloc(config);
	if (!region)
		return ERR_PTR(-ENOMEM);
	/* reserved first, stored last: nobody finds a half-made region */
	err = xa_alloc_cyclic(&rmem_regions, &region->id, NULL, XA_LIMIT(1, MINORMASK),
			      &rmem_region_next_id, GFP_KERNEL);
	if (err < 0)
		goto put;
	err = region_make_inode(region);
	if (err)
		goto erase;
	err = rmem_chrdev_add(region);
	if (err)
		goto erase;
	xa_store(&rmem_regions, region->id, region, GFP_KERNEL);
	pr_info("region %s: made, %llu bytes\n", region->name, region->size);
	rmem_netlink_event(region, RMEM_EVENT_NEW);
	return region;

erase:
	xa_erase(&rmem_regions, region->id);
put:
	rmem_region_put(region);
	return ERR_PTR(err);
}

/*
 * rmem_region_del() - unmake a region
 * @force: forget what is not durable, and who uses it
 * @lost: bytes that were forgotten
 *
 * What the region was for those who have it open ends at once: SIGBUS in
 * mappings, EIO for files. The object itself lives until they let go.
 *
 * Caller holds rmem_mutex. Return: 0, EBUSY while it is open or mapped or
 * something written is not durable, ENODEV.
 */
int rmem_region_del(struct rmem_region *region, bool force, u64 *lost)
{
	int err = 0;

	lockdep_assert_held(&rmem_mutex);
	spin_lock(&region->lock);
	if (region->dead) {
		err = -ENODEV;
	} else if (!force && (region->users || !rmem_region_clean(region))) {
		err = -EBUSY;
	} else {
		region->dead = true;
		region_enter(region, RMEM_STATE_FAILED, "unmade");
	}
	spin_unlock(&region->lock);
	if (err)
		return err;

	xa_erase(&rmem_regions, region->id);
	rmem_chrdev_del(region);
	rmem_request_fail_all(region, -ENODEV);
	rmem_region_abandon(region);
	cancel_delayed_work_sync(&region->deadline_work);
	cancel_work_sync(&region->push_work);
	*lost = rmem_region_discard(region);
	rmem_netlink_event(region, RMEM_EVENT_DEL);
	pr_info("region %s: unmade%s\n", region->name, *lost ? ", what was written is lost" : "");
	rmem_region_put(region);
	return 0;
}

/* Why nothing more can be had of it or written to it: ENODEV, ESTALE; or 0. */
int rmem_region_gone(const struct rmem_region *region)
{
	if (READ_ONCE(region->dead))
		return -ENODEV;
	return READ_ONCE(region->state) == RMEM_STATE_FAILED ? -ESTALE : 0;
}

/* By id, with a reference; NULL if there is none. */
struct rmem_region *rmem_region_get(u32 id)
{
	struct rmem_region *region;

	rcu_read_lock();
	region = xa_load(&rmem_regions, id);
	if (region && !kref_get_unless_zero(&region->ref))
		region = NULL;
	rcu_read_unlock();
	return region;
}

struct rmem_region *rmem_region_get_by_name(const char *name, size_t len)
{
	struct rmem_region *region;
	unsigned long id;

	rcu_read_lock();
	xa_for_each(&rmem_regions, id, region)
		if (strlen(region->name) == len && !memcmp(region->name, name, len) &&
		    kref_get_unless_zero(&region->ref))
			break;
	rcu_read_unlock();
	return region;
}

/* Owner, group and mode, whatever node or file it was found by. */
int rmem_region_permission(struct rmem_region *region, int mask)
{
	if ((mask & MAY_WRITE) && (region->flags & RMEM_REGION_READ_ONLY))
		return -EROFS;
	return inode_permission(&nop_mnt_idmap, region->inode, mask);
}

/*
 * rmem_region_open() - @file becomes the region
 *
 * Consumes nothing: the caller puts its own reference. Return: 0, EACCES,
 * EROFS, ENODEV, EISCONN.
 */
int rmem_region_open(struct rmem_region *region, struct file *file)
{
	int mask = (file->f_mode & FMODE_READ ? MAY_READ : 0) |
		   (file->f_mode & FMODE_WRITE ? MAY_WRITE : 0);
	int err;

	err = rmem_region_permission(region, mask);
	if (err)
		return err;
	mutex_lock(&rmem_mutex);
	if (file->private_data)
		err = -EISCONN;
	spin_lock(&region->lock);
	if (region->dead)
		err = -ENODEV;
	else if (!err)
		region->users++;
	spin_unlock(&region->lock);
	if (!err) {
		kref_get(&region->ref);
		file->f_mapping = region->inode->i_mapping;
		file->f_wb_err = filemap_sample_wb_err(file->f_mapping);
		/* a read may take what is resident, and say EAGAIN for the rest */
		file->f_mode |= FMODE_NOWAIT;
		/* whoever sees the region sees its page cache */
		smp_store_release(&file->private_data, region);
	}
	mutex_unlock(&rmem_mutex);
	return err;
}

void rmem_region_release(struct rmem_region *region)
{
	struct mem_cgroup *payer = NULL;

	spin_lock(&region->lock);
	if (!--region->users)
		swap(payer, region->payer);
	spin_unlock(&region->lock);
	mem_cgroup_put(payer);
	rmem_region_put(region);
}

/*
 * rmem_region_need() - the current task maps the region or waits for bytes of it
 *
 * The memory cgroup of the first such task pays for what is fetched ahead, until
 * the last user has gone. To open it is not enough: rmemd does that, to sync.
 */
void rmem_region_need(struct rmem_region *region)
{
	lockdep_assert_held(&region->lock);
	if (!region->payer)
		region->payer = get_mem_cgroup_from_mm(current->mm);
}

/* Who pays for a prefetch, referenced; NULL: the daemon, as nobody has the region in use. */
struct mem_cgroup *rmem_region_payer(struct rmem_region *region)
{
	struct mem_cgroup *payer = region->payer;

	lockdep_assert_held(&region->lock);
	/* of a cgroup that was removed the parent takes over */
	while (payer && !mem_cgroup_online(payer))
		payer = parent_mem_cgroup(payer);
	if (payer)
		css_get(&payer->css);
	return payer;
}

/* The region's requests go to @channel from now on; EBUSY or EISCONN if served. */
int rmem_region_serve(struct rmem_region *region, struct rmem_channel *channel)
{
	int err = 0;

	lockdep_assert_held(&rmem_mutex);
	spin_lock(&region->lock);
	if (region->dead) {
		err = -ENOENT;
	} else if (region->channel) {
		err = region->channel == channel ? -EISCONN : -EBUSY;
	} else {
		region->channel = channel;
		if (region->state != RMEM_STATE_FAILED)
			region_enter(region, RMEM_STATE_DEGRADED, "connecting");
		rmem_request_requeue_all(region);
	}
	spin_unlock(&region->lock);
	if (err)
		return err;
	list_add_tail(&region->served, &channel->regions);
	rmem_netlink_event(region, RMEM_EVENT_STATE);
	return 0;
}

/* Its daemon is gone, or it is being unmade: nobody serves it any more. */
void rmem_region_abandon(struct rmem_region *region)
{
	bool quiesced = false;

	lockdep_assert_held(&rmem_mutex);
	/* first: then nobody fills what is forgotten now */
	rmem_lane_end(region);
	spin_lock(&region->lock);
	if (region->channel) {
		rmem_request_forget_channel(region);
		region->channel = NULL;
		list_del_init(&region->served);
		if (region->state != RMEM_STATE_FAILED && !region->dead) {
			region_enter(region, RMEM_STATE_QUIESCED, "no daemon");
			quiesced = true;
		}
	}
	spin_unlock(&region->lock);
	if (quiesced) {
		pr_info("region %s: quiesced, its daemon is gone\n", region->name);
		rmem_netlink_event(region, RMEM_EVENT_STATE);
	}
}

/* RMEM_IOC_STATE */
int rmem_region_set_state(struct rmem_region *region, struct rmem_channel *channel, u32 state,
			  const char *reason)
{
	bool changed = false;
	int err = 0;

	spin_lock(&region->lock);
	if (region->channel != channel) {
		err = -ENOTCONN;
	} else if (region->state == RMEM_STATE_FAILED) {
		err = state == RMEM_STATE_FAILED ? 0 : -ESTALE;
	} else {
		changed = region->state != state || strcmp(region->reason, reason);
		region_enter(region, state, reason);
	}
	spin_unlock(&region->lock);
	if (!changed)
		return err;
	if (state == RMEM_STATE_FAILED)
		rmem_request_fail_all(region, -ESTALE);
	pr_info("region %s: %s%s%s\n", region->name, rmem_state_name(state), *reason ? ", " : "",
		reason);
	rmem_netlink_event(region, RMEM_EVENT_STATE);
	return 0;
}

u32 rmem_region_state(struct rmem_region *region, char *reason)
{
	u32 state;

	spin_lock(&region->lock);
	state = region->state;
	strscpy(reason, region->reason, RMEM_REASON_SIZE);
	spin_unlock(&region->lock);
	return state;
}

/* Dirty and under way, counted so that no page is in neither by mistake. */
static void region_unsafe_bytes(struct rmem_region *region, u64 *dirty, u64 *writeback)
{
	u64 put_back;

	do {
		put_back = READ_ONCE(region->hard_failures) + READ_ONCE(region->soft_failures);
		*dirty = rmem_dirty_bytes(region);
		*writeback = atomic64_read(&region->writeback_bytes);
	} while (put_back != READ_ONCE(region->hard_failures) + READ_ONCE(region->soft_failures));
}

/* RMEM_IOC_INFO, and what netlink tells; fills all but @size. */
void rmem_region_info(struct rmem_region *region, struct rmem_ioc_info *info)
{
	u64 dirty, writeback;

	memset(info, 0, sizeof(*info));
	info->region_id = region->id;
	info->region_flags = region->flags;
	info->size_bytes = region->size;
	info->chunk_bytes = region->chunk_bytes;
	info->state = rmem_region_state(region, info->reason);
	info->resident_bytes = (u64)READ_ONCE(region->inode->i_mapping->nrpages) << PAGE_SHIFT;
	region_unsafe_bytes(region, &dirty, &writeback);
	info->dirty_bytes = dirty;
	info->writeback_bytes = writeback;
	info->fetched_bytes = atomic64_read(&region->fetched_bytes);
	info->pushed_bytes = atomic64_read(&region->pushed_bytes);
	strscpy(info->name, region->name, sizeof(info->name));
}
