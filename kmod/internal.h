/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Private types of rmem.ko and the prototypes of each file.
 *
 * Lock order, outermost first:
 *
 *   rmem_mutex                 regions are made, unmade, served; never held
 *                              while waiting for a daemon
 *   mmap_lock / VMA lock
 *   request->fill_mutex
 *   mapping->invalidate_lock   shared: bytes enter the page cache;
 *                              exclusive: a punch begins (no waiting inside)
 *   region->evict_mutex        one evictor at a time; then mapping->i_mmap_rwsem
 *   folio lock                 never held while waiting for a daemon; of a second folio only
 *                              tried; then mapping->i_mmap_rwsem and page tables' locks
 *   region->lock               spinlock: requests, channel, state
 *   region->dirty_lock         spinlock: the dirty log
 *   channel->lock              spinlock: the ring
 *
 * A socket's own lock is taken under request->fill_mutex, by receive.c, and under none
 * of them, by send.c. A lane's two mutexes are taken under rmem_mutex or none of them, by
 * a task that may hold any lock of other subsystems; under them a socket's lock and a
 * fill_mutex are only tried.
 *
 * Nothing that waits for a daemon holds any of them, except that a fault which
 * may not drop mmap_lock waits with it, for a bounded time.
 */
#ifndef _RMEM_INTERNAL_H
#define _RMEM_INTERNAL_H

#include <linux/cdev.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/rbtree.h>
#include <linux/rhashtable-types.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "uapi/linux/rmem.h"
#include "uapi/linux/rmem_netlink.h"

#undef pr_fmt
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#define RMEM_CHUNK_PAGES_MAX (RMEM_CHUNK_MAX >> PAGE_SHIFT)

/* Writes of one region under way at once: each pins a chunk's dirty pages. */
#define RMEM_WRITES_MAX 512
/* Prefetches of one region outstanding at once. */
#define RMEM_PREFETCHES_MAX 4096
/* Readers of one region that the module tells from mere chance. */
#define RMEM_STEPS 8

struct bio_vec;
struct iov_iter;
struct rmem_channel;
struct rmem_lane;

/*
 * struct rmem_region - a range of remote bytes and its page cache
 *
 * Lives from netlink region-new to region-del, and for as long as one of its
 * requests does (@ref). Opened files count in @users, which keeps it from
 * being unmade.
 */
struct rmem_region {
	struct kref ref;
	struct rcu_head rcu;

	/* fixed when made */
	u32 id;				/* also the node's minor */
	char name[RMEM_NAME_MAX + 1];
	u64 size;
	pgoff_t nr_pages;
	u32 chunk_bytes;
	unsigned int chunk_order;	/* log2 of the pages in a chunk */
	unsigned int folio_order;	/* largest folio to fill with */
	u32 flags;			/* RMEM_REGION_* */
	kuid_t uid;
	kgid_t gid;
	umode_t mode;
	char *source;
	char *instance;
	u8 writer[RMEM_WRITER_SIZE];
	struct vfsmount *mnt;		/* private; its superblock is the BDI's home */
	struct inode *inode;		/* owns the page cache */
	struct device *dev;

	/* rmem_mutex */
	void *blob;
	u32 blob_bytes;
	struct list_head served;	/* in channel->regions */

	/* settable at any time; read once per use */
	u32 fault_timeout_ms;
	u32 sync_timeout_ms;
	u32 on_loss;
	u64 resident_limit;		/* bytes; 0: none */
	u64 dirty_limit;		/* likewise */
	u64 push_threshold;		/* likewise */

	spinlock_t lock;		/* of what follows, up to write_wait */
	struct rmem_channel *channel;	/* who serves; NULL: quiesced */
	struct rmem_lane *lane;		/* where to ask without him; only with @channel */
	u32 state;
	bool dead;			/* being unmade: no more opens, no more requests */
	bool lost;			/* a fetch ran out of time; until one succeeds */
	struct task_struct *dropper;	/* whose RMEM_IOC_DROP must not push; compared only */
	struct task_struct *overwriter;	/* whose cgroup is full, and whose turn it is; likewise */
	unsigned int users;
	struct mem_cgroup *payer;	/* of what nobody waits for; while there are users */
	unsigned int nr_prefetches;
	unsigned int nr_writes;
	unsigned int nr_asked;		/* fetches asked for on a lane and not over */
	unsigned int nr_takers;		/* tasks that have asked there, and wait */
	pgoff_t steps[RMEM_STEPS];	/* chunks that those who walk will miss next */
	struct {
		u32 tid;
		pgoff_t last, way;	/* the chunk it missed, and how far from the one before */
	} jumps[RMEM_STEPS];
	unsigned int next_step, next_jump; /* the ones to be forgotten */
	struct rb_root fetches;		/* by chunk; failed ones for a moment, too */
	struct list_head fetch_list;	/* in the order they were made */
	struct list_head write_list;	/* WRITE and ZERO, likewise */
	struct list_head taking_list;	/* WRITEs to be, that pages are being put into */
	struct list_head punches;	/* ranges being punched now */
	struct list_head entering;	/* fetches whose bytes enter the page cache now */
	u64 write_seq;			/* number of the newest write */
	u64 hard_failures;		/* writes the store refused, ever */
	u64 soft_failures;		/* writes put back to dirty, ever */
	int hard_error;			/* of the last hard failure */
	char reason[RMEM_REASON_SIZE];
	unsigned long reserved_pages;	/* of fetches under way */
	unsigned int room_waiters;	/* faults that will come again */
	unsigned int room_refusals;	/* of them, those to be refused */
	unsigned long room_refused_until; /* jiffies */
	bool room_lost;			/* a wait ran out of time; until a write succeeds */
	unsigned int aborts;		/* ever */
	u64 writes_over;		/* ever, by any end */
	unsigned long durable_at;	/* jiffies of the last write that succeeded */

	wait_queue_head_t answer_wait;	/* takers, one of whom is woken for an answer */
	bool answers;			/* there may be some in the lane's socket; no lock */

	wait_queue_head_t write_wait;	/* a write is over */
	struct delayed_work deadline_work;
	struct work_struct push_work;

	spinlock_t dirty_lock;		/* of stores to @dirty, of its bits and their number */
	struct xarray dirty;		/* chunk -> struct rmem_dirty */
	unsigned long unsafe_pages;	/* written and not durable, those open included */
	unsigned long open_pages;	/* that may be stored to without a fault */
	unsigned long promised_pages;	/* about to be written, within the dirty limit */

	struct mutex evict_mutex;	/* of what follows, up to the counters */
	pgoff_t evict_hand;		/* where the evictor goes on */
	u64 evict_vain_after;		/* writes_over when it had found nothing */
	unsigned long evict_vain_until;	/* jiffies */

	/* counters, since made */
	atomic64_t fetched_bytes;
	atomic64_t received_bytes;	/* of fetches, from sockets */
	atomic64_t sent_bytes;		/* of writes, to sockets */
	atomic64_t asked;		/* fetches, by the tasks that wait */
	atomic64_t answered;		/* fetches, likewise: they took the answer */
	atomic64_t pushed_bytes;
	atomic64_t evicted_bytes;	/* for the resident limit */
	atomic64_t writeback_bytes;	/* now */
	atomic64_t module_bytes;	/* now: requests, their folios, the dirty log */
	atomic64_t faults_demand;
	atomic64_t faults_resident;
	atomic64_t faults_write_protect;
	atomic64_t errors;
	atomic_t waiting;		/* now */
};

/*
 * struct rmem_channel - an open /dev/rmem_control that has a ring
 *
 * Lives as long as the open file. A region points at it only while it is open:
 * release() clears those pointers under region->lock first.
 */
struct rmem_channel {
	u32 generation;
	pid_t pid;
	struct list_head regions;	/* rmem_mutex */
	wait_queue_head_t wait;		/* poll */

	spinlock_t lock;		/* of what follows */
	struct rmem_ring_header *ring;	/* shared with user space: see ring.c */
	size_t ring_bytes;
	u32 entries;
	u32 head;
	u32 tail;			/* the last that made sense */
	struct list_head notes;		/* about lanes, that found no room yet */
	struct list_head urgent;	/* demand fetches, likewise */
	struct list_head normal;	/* everything else, likewise */
};

/* Tells a daemon that it has to read on a lane itself. Part of that. */
struct rmem_note {
	struct list_head node;		/* channel->lock: channel->notes */
	u32 region_id;
	u32 lane;
};

enum rmem_req_state {
	RMEM_REQ_QUEUED,	/* nobody has been told (yet, or in this generation) */
	RMEM_REQ_SENT,		/* in the ring or taken from it */
	RMEM_REQ_DONE,		/* over; ->error says how */
};

/*
 * struct rmem_req - one thing asked of the daemon
 *
 * Referenced by its region while it is outstanding (list and tree), and by
 * whoever waits for it or works on it.
 */
struct rmem_req {
	struct kref ref;
	struct rcu_head rcu;
	struct rmem_region *region;
	u32 id;
	struct rhash_head by_id;
	u8 op;
	pgoff_t chunk;
	u64 offset;
	u64 length;
	wait_queue_head_t wait;

	/* region->lock */
	enum rmem_req_state state;
	int error;			/* negative, valid when DONE */
	bool again;			/* published before */
	unsigned long deadline;		/* jiffies */
	struct list_head node;		/* region's fetch_, write_ or taking_list */

	/* channel->lock */
	struct list_head pending;	/* channel's urgent or normal */

	union {
		struct {
			/* region->lock */
			struct rb_node rb;
			unsigned int waiters;	/* since the last early fill; 0: a prefetch */
			unsigned int retries;	/* of them, faults that will come again */
			unsigned int early;	/* RMEM_FILL_EARLYs so far */
			bool timed_out;		/* counted as such */
			bool stale;		/* a punch or a write overtook it */
			u32 lane;		/* where its waiter has asked for it, or 0 */
			struct list_head entering; /* region's */
			u64 demand_offset;
			u32 tid;
			struct mem_cgroup *memcg; /* who pays; once set it stays */
			/* fill_mutex */
			u64 cursor;		/* bytes filled */
			unsigned long starving;	/* since when its cgroup has no room, or 0 */
			struct list_head folios;
		} fetch;
		struct {
			u64 seq;	/* in the order they began to take pages */
			bool sync;
			bool last;	/* of those that an fsync waits for, likely */
			bool punched;	/* zeros may have reached the store after it */
			u64 payload;
			DECLARE_BITMAP(pages, RMEM_CHUNK_PAGES_MAX);
		} write;
	};
	struct mutex fill_mutex;	/* one RMEM_IOC_FILL or _RECEIVE at a time */
};

/* A range being punched; fills that touch it are fetched again, writes pushed again. */
struct rmem_punch {
	struct list_head node;
	u64 offset;
	u64 end;
};

/* Does a request reach into the bytes from @offset to before @end? */
static inline bool rmem_request_overlaps(const struct rmem_req *req, u64 offset, u64 end)
{
	return offset < req->offset + req->length && req->offset < end;
}

/*
 * Unsafe: callers may hold locks of theirs (mmap_lock where a fault cannot be
 * retried, i_rwsem). Whoever waits for one of those does not freeze, so that a
 * suspend may fail; without this it would fail each time somebody waits.
 */
#define RMEM_SLEEP (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE)

/*
 * Sleeps killably and freezably; 0, -ETIME or -ERESTARTSYS.
 *
 * What has come true once counts: looked at again it may be false, and the wait is over.
 */
#define rmem_wait_event(wq, condition, timeout)					\
({										\
	long __left = (timeout);						\
	bool __true;								\
	int __err = 0;								\
										\
	might_sleep();								\
	__true = (condition);							\
	if (!__true) {								\
		__left = ___wait_event(wq, (__true = (condition)) || !__left,	\
				       RMEM_SLEEP, 0, __left,			\
				       __left = schedule_timeout(__left));	\
		if (__left < 0)							\
			__err = -ERESTARTSYS;					\
		else if (!__true)						\
			__err = -ETIME;						\
	}									\
	__err;									\
})

/* main.c */
extern struct mutex rmem_mutex;
int rmem_copy_args(void *args, size_t size, size_t first_size, unsigned long uarg, u32 *usize);

/* region.c */
struct rmem_region_config {
	const char *name;
	u64 size;
	u32 chunk_bytes;
	unsigned int folio_order;
	u32 flags;
	kuid_t uid;
	kgid_t gid;
	umode_t mode;
	u32 fault_timeout_ms;
	u32 sync_timeout_ms;
	u32 on_loss;
	u64 resident_limit;
	u64 dirty_limit;
	u64 push_threshold;
	const char *source;
	const char *instance;
	const void *blob;
	u32 blob_bytes;
};

extern struct xarray rmem_regions;
bool rmem_name_is_valid(const char *name);
bool rmem_limit_is_valid(u64 limit, u32 chunk_bytes);
int rmem_region_init(void);
void rmem_region_exit(void);
struct rmem_region *rmem_region_new(const struct rmem_region_config *config);
int rmem_region_del(struct rmem_region *region, bool force, u64 *lost);
struct rmem_region *rmem_region_get(u32 id);
struct rmem_region *rmem_region_get_by_name(const char *name, size_t len);
void rmem_region_put(struct rmem_region *region);
int rmem_region_open(struct rmem_region *region, struct file *file);
void rmem_region_release(struct rmem_region *region);
void rmem_region_need(struct rmem_region *region);
struct mem_cgroup *rmem_region_payer(struct rmem_region *region);
int rmem_region_permission(struct rmem_region *region, int mask);
int rmem_region_serve(struct rmem_region *region, struct rmem_channel *channel);
void rmem_region_abandon(struct rmem_region *region);
int rmem_region_gone(const struct rmem_region *region);
int rmem_region_set_state(struct rmem_region *region, struct rmem_channel *channel, u32 state,
			  const char *reason);
u32 rmem_region_state(struct rmem_region *region, char *reason);
void rmem_region_info(struct rmem_region *region, struct rmem_ioc_info *info);
const char *rmem_state_name(u32 state);

/* chrdev.c */
int rmem_chrdev_init(void);
void rmem_chrdev_exit(void);
int rmem_chrdev_add(struct rmem_region *region);
void rmem_chrdev_del(struct rmem_region *region);
bool rmem_chrdev_is_control(struct file *file);

/* rmemfs.c */
int rmem_fs_init(void);
void rmem_fs_exit(void);

/* file.c */
ssize_t rmem_read_iter(struct kiocb *iocb, struct iov_iter *to);
ssize_t rmem_write_iter(struct kiocb *iocb, struct iov_iter *from);
loff_t rmem_llseek(struct file *file, loff_t offset, int whence);
int rmem_mmap(struct file *file, struct vm_area_struct *vma);
int rmem_fsync(struct file *file, loff_t start, loff_t end, int datasync);
long rmem_fallocate(struct file *file, int mode, loff_t offset, loff_t len);
long rmem_file_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
int rmem_file_release(struct inode *inode, struct file *file);
extern const struct address_space_operations rmem_aops;

/*
 * struct rmem_wait - what a task waits for, that misses a page
 *
 * An early fill ends the wait, too, whatever page it brought: the task looks again.
 */
struct rmem_wait {
	struct rmem_req *req;
	unsigned int early;		/* early fills before */
	struct rmem_lane *ask;		/* where to ask for it, or NULL */
};

/* fault.c */
extern const struct vm_operations_struct rmem_vm_ops;
bool rmem_fault_would_recurse(const void __user *addr, u64 length);

/* request.c */
int rmem_request_init(void);
void rmem_request_exit(void);
int rmem_fetch_join(struct rmem_region *region, pgoff_t index, bool retries, bool asks,
		    struct rmem_wait *wait);
bool rmem_fetch_waits(const struct rmem_wait *wait);
int rmem_request_error(const struct rmem_req *req);
int rmem_fetch_wait(struct rmem_wait *wait, long timeout);
int rmem_lost(struct rmem_region *region, int err);
int rmem_fetch_populate(struct rmem_region *region, pgoff_t index);
int rmem_prefetch(struct rmem_region *region, struct rmem_ioc_prefetch *args);
struct rmem_req *rmem_fetch_lock(struct rmem_channel *channel, u64 cookie);
void rmem_fetch_unlock(struct rmem_req *req);
struct rmem_req *rmem_fetch_asked(struct rmem_region *region, u32 id, u32 lane);
bool rmem_fetch_lock_asked(struct rmem_req *req, u32 lane);
void rmem_fetch_again(struct rmem_req *req);
int rmem_fetch_seek(struct rmem_req *req, u64 offset, u64 length);
int rmem_fetch_filled(struct rmem_req *req, bool mark);
int rmem_fetch_fill(struct rmem_channel *channel, const struct rmem_ioc_fill *args);
int rmem_fetch_fill_early(struct rmem_channel *channel, const struct rmem_ioc_fill *args);
struct rmem_req *rmem_write_alloc(struct rmem_region *region, pgoff_t chunk, u8 op, bool sync);
void rmem_write_submit(struct rmem_req *req);
void rmem_write_discard(struct rmem_req *req);
bool rmem_request_complete(struct rmem_req *req, int error);
struct rmem_req *rmem_request_find(struct rmem_channel *channel, u64 cookie);
void rmem_request_discard(struct rmem_req *req);
void rmem_request_put(struct rmem_req *req);
void rmem_request_unasked(struct rmem_req *req, u32 generation);
void rmem_request_forget_lanes(struct rmem_region *region, u32 but);
void rmem_request_leave_lane(struct rmem_region *region, struct rmem_channel *channel, u32 lane);
void rmem_request_requeue_all(struct rmem_region *region);
void rmem_request_forget_channel(struct rmem_region *region);
void rmem_request_fail_all(struct rmem_region *region, int error);
void rmem_request_abort(struct rmem_region *region);
void rmem_request_deadline(struct work_struct *work);
u64 rmem_request_cookie(const struct rmem_req *req, const struct rmem_channel *channel);

/* socket.c */

/*
 * struct rmem_socket - a socket in use, on the stack of whoever uses it
 *
 * Two at once in one direction would each move some of the bytes, in no order.
 */
struct rmem_socket {
	struct list_head node;
	struct socket *sock;
	int direction;
};

bool rmem_socket_allowed(struct socket *sock);
int rmem_socket_get(struct rmem_socket *use, int fd, int direction);
void rmem_socket_put(struct rmem_socket *use);

/* receive.c */
/* Folios that are filled at once. */
#define RMEM_RECEIVE_BATCH 32

unsigned int rmem_receive_space(struct rmem_req *req, u64 at, u64 end, struct bio_vec *space);
int rmem_receive_done(struct rmem_req *req, bool checked, u32 checksum, bool mark);
int rmem_fetch_receive(struct rmem_channel *channel, struct rmem_ioc_receive *args);

/* send.c */
int rmem_region_send(struct rmem_region *region, struct rmem_ioc_send *args);

/* lane.c */
struct rmem_lane *rmem_lane_get(struct rmem_req *req);
int rmem_lane_wait(struct rmem_wait *wait, long timeout);
void rmem_lane_end(struct rmem_region *region);
int rmem_region_lane(struct rmem_region *region, struct rmem_channel *channel,
		     struct rmem_ioc_lane *args);

/* ring.c */
int rmem_ring_alloc(struct rmem_channel *channel, u32 entries);
void rmem_ring_free(struct rmem_channel *channel);
int rmem_ring_mmap(struct rmem_channel *channel, struct vm_area_struct *vma);
void rmem_ring_queue(struct rmem_channel *channel, struct rmem_req *req);
bool rmem_ring_ask(struct rmem_channel *channel, struct rmem_req *req, u32 lane);
void rmem_ring_miss(struct rmem_channel *channel, struct rmem_req *req, bool wake);
void rmem_ring_note(struct rmem_channel *channel, struct rmem_note *note);
void rmem_ring_unnote(struct rmem_channel *channel, struct rmem_note *note);
void rmem_ring_wake(struct rmem_channel *channel);
void rmem_ring_unqueue(struct rmem_channel *channel, struct rmem_req *req);
void rmem_ring_hit(struct rmem_channel *channel, u32 region_id, u64 offset, u32 tid);
bool rmem_ring_poll(struct rmem_channel *channel);

/* pages.c */
/*
 * How long a task may find no room in its memory cgroup, while others' pages there become
 * durable, before somebody is killed for it.
 */
#define RMEM_OOM_PATIENCE (5 * HZ)

struct folio *rmem_pages_get(struct rmem_region *region, pgoff_t index);
bool rmem_pages_hold(struct rmem_region *region, pgoff_t index);
gfp_t rmem_pages_gfp(struct address_space *mapping);
int rmem_pages_gather(struct rmem_region *region, struct list_head *folios, pgoff_t index,
		      pgoff_t end, unsigned int order);
void rmem_pages_unlist(struct rmem_region *region, struct folio *folio);
void rmem_pages_release(struct rmem_region *region, struct list_head *folios);
int rmem_pages_add(struct rmem_region *region, struct folio *folio, pgoff_t index, gfp_t gfp);
int rmem_pages_alloc(struct rmem_req *req);
int rmem_pages_copy(struct list_head *folios, u64 offset, u64 length, const void __user *from);
int rmem_pages_zero(struct list_head *folios, u64 offset, u64 length);
int rmem_pages_insert(struct rmem_req *req, struct list_head *folios, u64 offset, bool mark);
void rmem_pages_free(struct rmem_req *req);
bool rmem_pages_resident(struct rmem_region *region, pgoff_t first, pgoff_t count);
int rmem_pages_drop(struct file *file, u64 offset, u64 length);
int rmem_pages_writeout(struct rmem_req *req, struct rmem_ioc_writeout *args);
int rmem_pages_runs(struct rmem_req *req, struct rmem_ioc_runs *args);
void rmem_pages_hit(struct rmem_region *region, struct folio *folio, pgoff_t index);

/* room.c */
enum rmem_room {
	RMEM_ROOM_RESIDENT,	/* for a chunk */
	RMEM_ROOM_DIRTY,	/* for pages that are to be written */
	RMEM_ROOM_CGROUP,	/* perhaps: something has become durable, or nothing has to */
};

bool rmem_room_reserve(struct rmem_region *region, unsigned long pages);
void rmem_room_release(struct rmem_region *region, unsigned long pages);
bool rmem_room_make(struct rmem_region *region, unsigned long pages);
int rmem_room_refused(struct rmem_region *region);
int rmem_room_wait(struct rmem_region *region, enum rmem_room room, unsigned long pages,
		   bool retries, long timeout);
int rmem_room_populate(struct rmem_region *region, enum rmem_room room, unsigned long pages);
void rmem_room_abort(struct rmem_region *region);
void rmem_room_write_over(struct rmem_region *region, bool durable);
void rmem_room_push_ahead(struct rmem_region *region);
void rmem_room_push(struct work_struct *work);

/* dirty.c */
int rmem_dirty_set(struct rmem_region *region, pgoff_t first, unsigned long count);
int rmem_dirty_admit(struct rmem_region *region, pgoff_t first, unsigned long count);
int rmem_dirty_promise(struct rmem_region *region, pgoff_t chunk, unsigned long count);
void rmem_dirty_settle(struct rmem_region *region, pgoff_t chunk, unsigned long count);
bool rmem_dirty_fits(struct rmem_region *region, unsigned long count);
bool rmem_dirty_is_full(struct rmem_region *region, pgoff_t index);
int rmem_dirty_hold(struct rmem_region *region, pgoff_t chunk);
unsigned long rmem_dirty_before(struct rmem_region *region, pgoff_t index, unsigned long most);
int rmem_dirty_open(struct rmem_region *region, struct folio *folio);
bool rmem_dirty_others(struct folio *folio);
bool rmem_dirty_close(struct rmem_region *region, struct folio *folio, const unsigned long *stored);
bool rmem_dirty_is_open(struct rmem_region *region, struct folio *folio);
void rmem_dirty_forget(struct rmem_region *region);
void rmem_dirty_take(struct rmem_region *region, struct folio *folio, unsigned long *pages);
void rmem_dirty_give_back(struct rmem_region *region, pgoff_t chunk, const unsigned long *taken,
			  bool again);
u64 rmem_dirty_bytes(struct rmem_region *region);
bool rmem_dirty_run(struct rmem_region *region, struct folio *folio, pgoff_t from,
		    pgoff_t *first, pgoff_t *end);
void rmem_dirty_free(struct rmem_region *region);

/* protect.c */
void rmem_protect_ahead(struct rmem_region *region, struct vm_fault *vmf, struct folio *folio);
bool rmem_protect_settle(struct rmem_region *region, struct folio *folio);

/* overwrite.c */
bool rmem_overwrite_piece(struct rmem_region *region, u64 pos, u64 *bytes);
ssize_t rmem_overwrite(struct rmem_region *region, u64 pos, u64 bytes, struct iov_iter *from);
int rmem_overwrite_range(struct rmem_region *region, u64 offset, u64 end);

/* writeback.c */
int rmem_writepages(struct address_space *mapping, struct writeback_control *wbc);
void rmem_writeback_end(struct rmem_req *req);
int rmem_region_push(struct rmem_region *region);
u64 rmem_region_discard(struct rmem_region *region);
int rmem_region_unsafe(struct rmem_region *region, struct rmem_ioc_unsafe *args);
int rmem_region_sync(struct rmem_region *region, loff_t start, loff_t end);
int rmem_region_punch(struct rmem_region *region, u64 offset, u64 end);
bool rmem_region_clean(struct rmem_region *region);

/* netlink.c */
int rmem_netlink_init(void);
void rmem_netlink_exit(void);
void rmem_netlink_event(struct rmem_region *region, u32 event);

/* debugfs.c */
void rmem_debugfs_init(void);
void rmem_debugfs_exit(void);

/*
 * An ioctl is known by its type and number alone: a newer caller's struct is
 * longer, and so is the size in its command.
 */
static inline unsigned int rmem_ioctl_nr(unsigned int cmd)
{
	return _IOC_TYPE(cmd) == RMEM_IOC_TYPE ? _IOC_NR(cmd) : ~0u;
}

static inline u64 rmem_chunk_offset(const struct rmem_region *region, pgoff_t chunk)
{
	return (u64)chunk << (region->chunk_order + PAGE_SHIFT);
}

static inline pgoff_t rmem_chunk_of(const struct rmem_region *region, pgoff_t index)
{
	return index >> region->chunk_order;
}

#endif /* _RMEM_INTERNAL_H */
