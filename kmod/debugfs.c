// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/debug/rmem/regions: every region and what it waits for, now.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "internal.h"

static struct dentry *debugfs_dir;

static void show_request(struct seq_file *m, struct rmem_req *req)
{
	static const char * const ops[] = {
		[RMEM_OP_FETCH] = "fetch", [RMEM_OP_WRITE] = "write", [RMEM_OP_ZERO] = "zero",
	};
	static const char * const states[] = {
		[RMEM_REQ_QUEUED] = "queued", [RMEM_REQ_SENT] = "sent", [RMEM_REQ_DONE] = "failed",
	};

	seq_printf(m, "  %s id=%u offset=%llu length=%llu state=%s", ops[req->op], req->id,
		   req->offset, req->length, states[req->state]);
	if (req->op == RMEM_OP_FETCH)
		seq_printf(m, " waiters=%u", req->fetch.waiters);
	else
		seq_printf(m, " seq=%llu payload=%llu", req->write.seq, req->write.payload);
	seq_puts(m, "\n");
}

static void show_region(struct seq_file *m, struct rmem_region *region)
{
	struct rmem_req *req;

	spin_lock(&region->lock);
	seq_printf(m, "%s id=%u state=%s users=%u prefetches=%u writes=%u lost=%d received=%llu sent=%llu asked=%llu answered=%llu",
		   region->name, region->id, rmem_state_name(region->state), region->users,
		   region->nr_prefetches, region->nr_writes, region->lost,
		   (u64)atomic64_read(&region->received_bytes),
		   (u64)atomic64_read(&region->sent_bytes),
		   (u64)atomic64_read(&region->asked), (u64)atomic64_read(&region->answered));
	seq_printf(m, " reserved=%lu unsafe=%lu open=%lu evicted=%llu room_waiters=%u room_lost=%d\n",
		   region->reserved_pages, READ_ONCE(region->unsafe_pages),
		   READ_ONCE(region->open_pages), (u64)atomic64_read(&region->evicted_bytes),
		   region->room_waiters, region->room_lost);
	list_for_each_entry(req, &region->fetch_list, node)
		show_request(m, req);
	list_for_each_entry(req, &region->write_list, node)
		show_request(m, req);
	spin_unlock(&region->lock);
}

static int regions_show(struct seq_file *m, void *unused)
{
	struct rmem_region *region;
	unsigned long id;

	mutex_lock(&rmem_mutex);
	xa_for_each(&rmem_regions, id, region)
		show_region(m, region);
	mutex_unlock(&rmem_mutex);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(regions);

void rmem_debugfs_init(void)
{
	debugfs_dir = debugfs_create_dir("rmem", NULL);
	debugfs_create_file("regions", 0400, debugfs_dir, NULL, &regions_fops);
}

void rmem_debugfs_exit(void)
{
	debugfs_remove_recursive(debugfs_dir);
}
