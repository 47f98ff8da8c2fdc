// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests: what is asked of the daemon, from the asking to the answer.
 *
 *   QUEUED ──published──▶ SENT ──filled, completed, failed, expired──▶ DONE
 *      ▲                    │
 *      └──daemon gone───────┘
 *
 * Every transition is in this file and under region->lock (QUEUED to SENT in
 * ring.c, under it as well or under the channel's). Whoever makes a request
 * DONE, and nobody else, ends what depends on it: waiters of a fetch, folios
 * under writeback of a write.
 *
 * A cookie is the request's id in the low half and the channel's generation in
 * the high half: the answer to another daemon's request can never match.
 */
#include <linux/memcontrol.h>
#include <linux/rhashtable.h>
#include <linux/slab.h>

#include "internal.h"
#include "trace.h"

/* How long a failed fetch is remembered for the retry of its fault. */
#define RMEM_TOMBSTONE (2 * HZ)

static struct kmem_cache *rmem_req_cache;

/*
 * Outstanding requests by id. Not an xarray: ids go up and up, and for each of them it would
 * make its nodes anew, which is a twentieth of what a miss costs.
 */
static struct rhashtable rmem_req_ids;
static const struct rhashtable_params rmem_req_params = {
	.key_len = sizeof_field(struct rmem_req, id),
	.key_offset = offsetof(struct rmem_req, id),
	.head_offset = offsetof(struct rmem_req, by_id),
	.automatic_shrinking = true,
};

static atomic_t rmem_req_last_id = ATOMIC_INIT(0);

int rmem_request_init(void)
{
	int err;

	/* not accounted: at most one a task that waits, and the fault must not fail for it */
	rmem_req_cache = KMEM_CACHE(rmem_req, 0);
	if (!rmem_req_cache)
		return -ENOMEM;
	err = rhashtable_init(&rmem_req_ids, &rmem_req_params);
	if (err)
		kmem_cache_destroy(rmem_req_cache);
	return err;
}

void rmem_request_exit(void)
{
	/* requests are freed by RCU */
	rcu_barrier();
	WARN_ON_ONCE(atomic_read(&rmem_req_ids.nelems));
	rhashtable_destroy(&rmem_req_ids);
	kmem_cache_destroy(rmem_req_cache);
}

u64 rmem_request_cookie(const struct rmem_req *req, const struct rmem_channel *channel)
{
	return (u64)channel->generation << 32 | req->id;
}

/* An id that no other outstanding request has, and never 0. */
static int request_insert(struct rmem_req *req)
{
	int err;

	do {
		req->id = atomic_inc_return(&rmem_req_last_id);
		err = req->id ? rhashtable_lookup_insert_fast(&rmem_req_ids, &req->by_id,
							      rmem_req_params) : -EEXIST;
	} while (err == -EEXIST);
	return err;
}

static void request_remove(struct rmem_req *req)
{
	rhashtable_remove_fast(&rmem_req_ids, &req->by_id, rmem_req_params);
}

/* Referenced, or NULL. */
static struct rmem_req *request_lookup(u32 id)
{
	struct rmem_req *req;

	rcu_read_lock();
	req = rhashtable_lookup(&rmem_req_ids, &id, rmem_req_params);
	if (req && !kref_get_unless_zero(&req->ref))
		req = NULL;
	rcu_read_unlock();
	return req;
}

static struct rmem_req *request_alloc(struct rmem_region *region, u8 op)
{
	struct rmem_req *req = kmem_cache_zalloc(rmem_req_cache, GFP_NOFS);

	if (!req)
		return NULL;
	kref_init(&req->ref);
	kref_get(&region->ref);
	atomic64_add(sizeof(*req), &region->module_bytes);
	req->region = region;
	req->op = op;
	init_waitqueue_head(&req->wait);
	mutex_init(&req->fill_mutex);
	INIT_LIST_HEAD(&req->node);
	INIT_LIST_HEAD(&req->pending);
	if (op == RMEM_OP_FETCH) {
		INIT_LIST_HEAD(&req->fetch.folios);
		RB_CLEAR_NODE(&req->fetch.rb);
	}
	if (request_insert(req)) {
		rmem_request_put(req);
		return NULL;
	}
	return req;
}

static void request_free_rcu(struct rcu_head *rcu)
{
	kmem_cache_free(rmem_req_cache, container_of(rcu, struct rmem_req, rcu));
}

static void request_release(struct kref *ref)
{
	struct rmem_req *req = container_of(ref, struct rmem_req, ref);

	if (req->op == RMEM_OP_FETCH) {
		rmem_pages_free(req);
		mem_cgroup_put(req->fetch.memcg);
	}
	atomic64_sub(sizeof(*req), &req->region->module_bytes);
	rmem_region_put(req->region);
	call_rcu(&req->rcu, request_free_rcu);
}

void rmem_request_put(struct rmem_req *req)
{
	kref_put(&req->ref, request_release);
}

/* A request that was never submitted after all. */
void rmem_request_discard(struct rmem_req *req)
{
	request_remove(req);
	rmem_request_put(req);
}

/* Finds an outstanding request that this channel serves, and takes a reference. */
struct rmem_req *rmem_request_find(struct rmem_channel *channel, u64 cookie)
{
	struct rmem_req *req;

	if (cookie >> 32 != channel->generation)
		return NULL;
	req = request_lookup((u32)cookie);
	if (!req)
		return NULL;
	if (READ_ONCE(req->region->channel) != channel ||
	    READ_ONCE(req->state) != RMEM_REQ_SENT) {
		rmem_request_put(req);
		return NULL;
	}
	return req;
}

static void request_publish(struct rmem_req *req)
{
	struct rmem_region *region = req->region;

	lockdep_assert_held(&region->lock);
	if (region->channel)
		rmem_ring_queue(region->channel, req);
}

/* Wakes the deadline worker no later than @when. */
static void request_arm(struct rmem_region *region, unsigned long when)
{
	unsigned long delay = time_after(when, jiffies) ? when - jiffies : 0;

	if (!delayed_work_pending(&region->deadline_work) ||
	    time_before(when, region->deadline_work.timer.expires))
		mod_delayed_work(system_wq, &region->deadline_work, delay);
}

/*
 * Fetches
 */

static struct rmem_req *fetch_lookup(struct rmem_region *region, pgoff_t chunk)
{
	struct rb_node *node = region->fetches.rb_node;

	lockdep_assert_held(&region->lock);
	while (node) {
		struct rmem_req *req = rb_entry(node, struct rmem_req, fetch.rb);

		if (chunk < req->chunk)
			node = node->rb_left;
		else if (chunk > req->chunk)
			node = node->rb_right;
		else
			return req;
	}
	return NULL;
}

/* The tree's reference becomes the caller's. */
static void fetch_unlink(struct rmem_req *req)
{
	lockdep_assert_held(&req->region->lock);
	rb_erase(&req->fetch.rb, &req->region->fetches);
	RB_CLEAR_NODE(&req->fetch.rb);
	list_del_init(&req->node);
}

static void fetch_link(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	struct rb_node **link = &region->fetches.rb_node, *parent = NULL;

	lockdep_assert_held(&region->lock);
	while (*link) {
		parent = *link;
		if (req->chunk < rb_entry(parent, struct rmem_req, fetch.rb)->chunk)
			link = &parent->rb_left;
		else
			link = &parent->rb_right;
	}
	rb_link_node(&req->fetch.rb, parent, link);
	rb_insert_color(&req->fetch.rb, &region->fetches);
	list_add_tail(&req->node, &region->fetch_list);
}

/* Nobody may wait: a fetch ran out of time and none has succeeded since. */
static bool fetch_lost(struct rmem_region *region)
{
	lockdep_assert_held(&region->lock);
	return region->lost && READ_ONCE(region->on_loss) != RMEM_ON_LOSS_WAIT;
}

/* Consumes the caller's reference: it becomes the tree's. False, and nothing: no room. */
static bool fetch_start(struct rmem_req *req, pgoff_t chunk)
{
	struct rmem_region *region = req->region;

	lockdep_assert_held(&region->lock);
	req->chunk = chunk;
	req->offset = rmem_chunk_offset(region, chunk);
	req->length = min_t(u64, region->chunk_bytes, region->size - req->offset);
	if (!rmem_room_reserve(region, DIV_ROUND_UP(req->length, PAGE_SIZE)))
		return false;
	req->fetch.demand_offset = req->offset;
	region->nr_prefetches++;
	fetch_link(req);
	trace_rmem_request_new(req, 0);
	return true;
}

/* The first task that waits starts the clock; true for that one. */
static bool fetch_demand(struct rmem_req *req, pgoff_t index)
{
	struct rmem_region *region = req->region;

	lockdep_assert_held(&region->lock);
	if (req->fetch.waiters++)
		return false;
	region->nr_prefetches--;
	req->fetch.demand_offset = (u64)index << PAGE_SHIFT;
	req->fetch.tid = task_pid_nr(current);
	rmem_region_need(region);
	/* a prefetch that is being filled has found its payer already */
	if (!req->fetch.memcg)
		req->fetch.memcg = get_mem_cgroup_from_mm(current->mm);
	req->deadline = jiffies + msecs_to_jiffies(READ_ONCE(region->fault_timeout_ms));
	request_arm(region, req->deadline);
	return true;
}

/*
 * rmem_fetch_join() - wait for the chunk that holds page @index
 * @retries: the caller cannot carry an error out of its wait; it will come
 *	again and ask here
 * @asks: the caller may ask for it by itself, on a lane
 * @wait: out: to pass to rmem_fetch_wait(), as soon as the caller holds no lock; its
 *	request to be put then
 *
 * Joins the fetch that is under way or asks for a new one. A fetch that failed
 * a moment ago answers as many callers as it left behind without an error.
 *
 * Return: 0; EAGAIN (it is there now), EDQUOT (no room, and none can be made),
 * ENOMEM, ENODEV, ESTALE, ETIME (the region is lost), EIO, and there is nothing to wait for.
 */
int rmem_fetch_join(struct rmem_region *region, pgoff_t index, bool retries, bool asks,
		    struct rmem_wait *wait)
{
	pgoff_t chunk = rmem_chunk_of(region, index);
	struct rmem_req *fresh = NULL, *stale = NULL, *req;
	bool started = false;
	int err;

	wait->ask = NULL;
again:
	spin_lock(&region->lock);
	err = rmem_region_gone(region);
	if (err)
		goto out;
	req = fetch_lookup(region, chunk);
	if (req && req->state == RMEM_REQ_DONE) {
		err = req->error;
		if (!--req->fetch.retries) {
			fetch_unlink(req);
			stale = req;
		}
		goto out;
	}
	/* what was fetched between the caller's look and the lock is in by now */
	if (!req && rmem_pages_hold(region, index)) {
		err = -EAGAIN;
		goto out;
	}
	if (!req && fresh) {
		if (!fetch_start(fresh, chunk)) {
			err = -EDQUOT;
			goto out;
		}
		req = fresh;
		fresh = NULL;
		started = true;
		if (fetch_lost(region))
			request_publish(req);
	}
	if (req && fetch_lost(region)) {
		/* it goes on as a prefetch; its success ends the loss */
		atomic64_inc(&region->errors);
		err = -ETIME;
		goto out;
	}
	if (req) {
		kref_get(&req->ref);
		wait->req = req;
		wait->early = req->fetch.early;
		req->fetch.retries += retries;
		if (fetch_demand(req, index)) {
			if (started && asks)
				wait->ask = rmem_lane_get(req);
			if (!wait->ask)
				request_publish(req);
		}
	}
	spin_unlock(&region->lock);
	if (!req) {
		fresh = request_alloc(region, RMEM_OP_FETCH);
		if (!fresh)
			return -ENOMEM;
		goto again;
	}
	goto drop_fresh;
out:
	spin_unlock(&region->lock);
	if (err == -EDQUOT && rmem_room_make(region, 1ul << region->chunk_order))
		goto again;
	if (stale)
		rmem_request_put(stale);
drop_fresh:
	if (fresh)
		rmem_request_discard(fresh);
	return err;
}

/* Of a request that is over: by what error. */
int rmem_request_error(const struct rmem_req *req)
{
	/* pairs with the release in request_finish() */
	smp_rmb();
	return req->error;
}

/* Neither is the fetch over, nor has it brought any page yet. */
bool rmem_fetch_waits(const struct rmem_wait *wait)
{
	return READ_ONCE(wait->req->state) != RMEM_REQ_DONE &&
	       READ_ONCE(wait->req->fetch.early) == wait->early;
}

/*
 * rmem_fetch_wait() - wait, killably and freezably, until a fetch is over or brings pages
 * @timeout: in jiffies; the fetch's own deadline applies besides
 *
 * Return: 0 (look again), the fetch's error, ETIME or ERESTARTSYS, negative.
 */
int rmem_fetch_wait(struct rmem_wait *wait, long timeout)
{
	struct rmem_region *region = wait->req->region;
	int err;

	if (wait->ask)
		return rmem_lane_wait(wait, timeout);
	atomic_inc(&region->waiting);
	err = rmem_wait_event(wait->req->wait, !rmem_fetch_waits(wait), timeout);
	atomic_dec(&region->waiting);
	return err ?: rmem_request_error(wait->req);
}

/* How a wait ended, as read and write tell it; the region's policy may kill for it. */
int rmem_lost(struct rmem_region *region, int err)
{
	/* unmade by force */
	if (err == -ENODEV)
		return -EIO;
	if (err != -ETIME)
		return err;
	if (READ_ONCE(region->on_loss) == RMEM_ON_LOSS_KILL && !(current->flags & PF_KTHREAD))
		send_sig(SIGKILL, current, 1);
	return -EIO;
}

/*
 * rmem_fetch_populate() - have page @index in the page cache, by waiting
 *
 * For callers that hold no lock and can carry an error: read and write.
 */
int rmem_fetch_populate(struct rmem_region *region, pgoff_t index)
{
	struct rmem_wait wait;
	int err = rmem_fetch_join(region, index, false, true, &wait);

	if (err == -EDQUOT)
		return rmem_room_populate(region, RMEM_ROOM_RESIDENT, 1);
	if (err == -EAGAIN)
		return 0;
	if (!err) {
		atomic64_inc(&region->faults_demand);
		err = rmem_fetch_wait(&wait, MAX_SCHEDULE_TIMEOUT);
		rmem_request_put(wait.req);
	}
	return rmem_lost(region, err);
}

/*
 * RMEM_IOC_PREFETCH: fetches that nobody waits for yet, as far as there is room.
 */
int rmem_prefetch(struct rmem_region *region, struct rmem_ioc_prefetch *args)
{
	pgoff_t chunk;
	u64 last;

	if (args->offset >= region->size || !args->length)
		return -EINVAL;
	last = args->offset + min(args->length, region->size - args->offset) - 1;
	last = last >> PAGE_SHIFT >> region->chunk_order;

	args->queued = 0;
	for (chunk = args->offset >> PAGE_SHIFT >> region->chunk_order; chunk <= last; chunk++) {
		bool full = false, linked = false, over;
		struct rmem_req *req;

		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		if (rmem_pages_resident(region, chunk << region->chunk_order,
					1ul << region->chunk_order))
			continue;
		req = request_alloc(region, RMEM_OP_FETCH);
		if (!req)
			return -ENOMEM;
again:
		spin_lock(&region->lock);
		/* the rest of the range, which may be endless, would fare no better */
		over = rmem_region_gone(region) || region->nr_prefetches >= RMEM_PREFETCHES_MAX;
		if (!over && !fetch_lookup(region, chunk)) {
			linked = fetch_start(req, chunk);
			full = !linked;
			if (linked)
				request_publish(req);
		}
		spin_unlock(&region->lock);
		if (full && args->flags & RMEM_PREFETCH_MAKE_ROOM &&
		    rmem_room_make(region, 1ul << region->chunk_order)) {
			full = false;
			goto again;
		}
		if (linked)
			args->queued++;
		else
			rmem_request_discard(req);
		if (full)
			return args->queued ? 0 : -EDQUOT;
		if (over || args->queued == RMEM_PREFETCHES_MAX)
			break;
	}
	return 0;
}

/* Whoever waits for it has not asked on a lane, or not to any purpose. */
static void fetch_unask(struct rmem_req *req)
{
	lockdep_assert_held(&req->region->lock);
	if (!req->fetch.lane)
		return;
	WRITE_ONCE(req->fetch.lane, 0);
	req->region->nr_asked--;
}

/*
 * Ends
 */

/*
 * A write is durable, so its pages may go from now on. A fetch of the chunk that is
 * under way may bring what was there before: it has to come again. EAGAIN: it is too
 * late for that, its bytes are being let in; or a punch may have zeroed the store after
 * the write. Then the pages have to stay.
 */
static int write_overtakes(struct rmem_req *write)
{
	struct rmem_req *fetch = fetch_lookup(write->region, write->chunk);
	struct rmem_punch *punch;

	if (write->write.punched)
		return -EAGAIN;
	list_for_each_entry(punch, &write->region->punches, node)
		if (rmem_request_overlaps(write, punch->offset, punch->end))
			return -EAGAIN;
	if (fetch && fetch->state == RMEM_REQ_SENT)
		fetch->fetch.stale = true;
	list_for_each_entry(fetch, &write->region->entering, fetch.entering)
		if (fetch->chunk == write->chunk)
			return -EAGAIN;
	return 0;
}

/*
 * Makes a request DONE; false if it was. A fetch that failed stays in the tree
 * for a moment, so that the retry of its fault learns of it.
 */
static bool request_finish(struct rmem_req *req, int error)
{
	struct rmem_region *region = req->region;
	bool fetch = req->op == RMEM_OP_FETCH, unlinked = true;

	spin_lock(&region->lock);
	if (req->state == RMEM_REQ_DONE) {
		spin_unlock(&region->lock);
		return false;
	}
	if (region->channel)
		rmem_ring_unqueue(region->channel, req);
	if (req->op == RMEM_OP_WRITE && !error)
		error = write_overtakes(req);
	req->error = error;
	/* pairs with the barrier in rmem_request_error() */
	smp_store_release(&req->state, RMEM_REQ_DONE);
	if (fetch) {
		fetch_unask(req);
		rmem_room_release(region, DIV_ROUND_UP(req->length, PAGE_SIZE));
		if (!req->fetch.waiters)
			region->nr_prefetches--;
		/* of a time-out the region itself knows, for as long as it is lost */
		if (error && error != -ETIME && req->fetch.retries && !region->dead) {
			unlinked = false;
			req->deadline = jiffies + RMEM_TOMBSTONE;
			list_move_tail(&req->node, &region->fetch_list);
			request_arm(region, req->deadline);
		} else {
			fetch_unlink(req);
		}
		if (!error)
			region->lost = false;
	}
	spin_unlock(&region->lock);

	request_remove(req);
	if (error && error != -EAGAIN && error != -ECANCELED)
		atomic64_inc(&region->errors);
	trace_rmem_request_done(req, error);
	if (!fetch) {
		rmem_writeback_end(req);
		/* an fsync sees it gone only with its failure counted */
		spin_lock(&region->lock);
		list_del_init(&req->node);
		region->nr_writes--;
		rmem_room_write_over(region, !error);
		spin_unlock(&region->lock);
		wake_up_all(&region->write_wait);
	}
	wake_up_all(&req->wait);
	if (unlinked)
		rmem_request_put(req);
	return true;
}

/* Asks again, from the first byte; false if the fetch is over. */
static bool fetch_repeat(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	bool repeat;

	lockdep_assert_held(&req->fill_mutex);
	rmem_pages_free(req);
	req->fetch.cursor = 0;
	spin_lock(&region->lock);
	req->fetch.stale = false;
	fetch_unask(req);
	repeat = req->state == RMEM_REQ_SENT;
	if (repeat) {
		req->again = true;
		req->state = RMEM_REQ_QUEUED;
		request_publish(req);
	}
	spin_unlock(&region->lock);
	return repeat;
}

/* The daemon has to ask for it, once more; for whoever holds it by a fetch lock. */
void rmem_fetch_again(struct rmem_req *req)
{
	fetch_repeat(req);
}

/*
 * rmem_request_complete() - the daemon's word that a request is over
 * @error: negative errno or 0
 *
 * Return: false if it was over before.
 */
bool rmem_request_complete(struct rmem_req *req, int error)
{
	bool done;

	if (req->op != RMEM_OP_FETCH)
		return request_finish(req, error);
	/* not in the middle of a fill: what that lets in must not have failed */
	mutex_lock(&req->fill_mutex);
	done = error == -ECANCELED && READ_ONCE(req->fetch.waiters) && fetch_repeat(req);
	if (!done)
		done = request_finish(req, error);
	mutex_unlock(&req->fill_mutex);
	return done;
}

/* May its bytes enter the page cache? Not if a punch or a write has overtaken it, or time. */
static bool fetch_enter(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	struct rmem_punch *punch;
	bool stale;

	spin_lock(&region->lock);
	stale = req->fetch.stale || req->state != RMEM_REQ_SENT;
	list_for_each_entry(punch, &region->punches, node)
		stale |= rmem_request_overlaps(req, punch->offset, punch->end);
	if (!stale)
		list_add(&req->fetch.entering, &region->entering);
	spin_unlock(&region->lock);
	return !stale;
}

/* They have, or could not. */
static void fetch_entered(struct rmem_req *req)
{
	spin_lock(&req->region->lock);
	list_del(&req->fetch.entering);
	spin_unlock(&req->region->lock);
}

/*
 * rmem_fetch_lock() - a fetch to put bytes into, by nobody else meanwhile
 *
 * Return: the request, referenced; ENOENT, EINVAL (it is no fetch), EINTR.
 */
struct rmem_req *rmem_fetch_lock(struct rmem_channel *channel, u64 cookie)
{
	struct rmem_req *req = rmem_request_find(channel, cookie);
	int err;

	if (!req)
		return ERR_PTR(-ENOENT);
	err = req->op == RMEM_OP_FETCH ? mutex_lock_killable(&req->fill_mutex) : -EINVAL;
	if (!err && READ_ONCE(req->state) != RMEM_REQ_SENT) {
		mutex_unlock(&req->fill_mutex);
		err = -ENOENT;
	}
	if (!err)
		return req;
	rmem_request_put(req);
	return ERR_PTR(err);
}

void rmem_fetch_unlock(struct rmem_req *req)
{
	mutex_unlock(&req->fill_mutex);
	rmem_request_put(req);
}

/* The outstanding fetch of that id, referenced, if it was asked for on that lane, or NULL. */
struct rmem_req *rmem_fetch_asked(struct rmem_region *region, u32 id, u32 lane)
{
	struct rmem_req *req = request_lookup(id);

	if (req && (req->region != region || req->op != RMEM_OP_FETCH ||
		    READ_ONCE(req->fetch.lane) != lane)) {
		rmem_request_put(req);
		req = NULL;
	}
	return req;
}

/*
 * rmem_fetch_lock_asked() - as rmem_fetch_lock(), for a fetch as it was asked for
 *
 * False: it is over or asked for in another way by now, or somebody else puts bytes
 * into it, whom the caller must not wait for.
 */
bool rmem_fetch_lock_asked(struct rmem_req *req, u32 lane)
{
	if (!mutex_trylock(&req->fill_mutex))
		return false;
	if (READ_ONCE(req->state) == RMEM_REQ_SENT && READ_ONCE(req->fetch.lane) == lane)
		return true;
	mutex_unlock(&req->fill_mutex);
	return false;
}

/* @length bytes come at @offset: is that right, and is there room? */
int rmem_fetch_seek(struct rmem_req *req, u64 offset, u64 length)
{
	lockdep_assert_held(&req->fill_mutex);
	if (offset && offset != req->fetch.cursor)
		return -ESPIPE;
	if (!length || length > req->length - offset)
		return -EINVAL;
	req->fetch.cursor = offset;
	return rmem_pages_alloc(req);
}

/*
 * Folios with bytes of a fetch become visible, from @offset of the region on. EAGAIN: not
 * any more.
 */
static int fetch_insert(struct rmem_req *req, struct list_head *folios, u64 offset, bool mark)
{
	struct address_space *mapping = req->region->inode->i_mapping;
	int err = -EAGAIN;

	lockdep_assert_held(&req->fill_mutex);
	/* A punch begins under this lock, held exclusively: before or after. */
	filemap_invalidate_lock_shared(mapping);
	if (fetch_enter(req)) {
		err = rmem_pages_insert(req, folios, offset, mark);
		fetch_entered(req);
	}
	filemap_invalidate_unlock_shared(mapping);
	return err;
}

/*
 * rmem_fetch_filled() - bytes up to the cursor are there
 * @mark: tell the daemon when they are first used
 *
 * With the last one they become visible and the fetch is over. Return: 0 or
 * ENOMEM, and then the fetch wants its bytes once more, from the first.
 */
int rmem_fetch_filled(struct rmem_req *req, bool mark)
{
	int err;

	lockdep_assert_held(&req->fill_mutex);
	if (req->fetch.cursor < req->length)
		return 0;
	err = fetch_insert(req, &req->fetch.folios, req->offset, mark);
	if (!err) {
		request_finish(req, 0);
		return 0;
	}
	if (err == -EAGAIN) {
		/* what was fetched may be from before */
		fetch_repeat(req);
		return 0;
	}
	rmem_pages_free(req);
	req->fetch.cursor = 0;
	return err;
}

/* RMEM_IOC_FILL */
int rmem_fetch_fill(struct rmem_channel *channel, const struct rmem_ioc_fill *args)
{
	struct rmem_req *req = rmem_fetch_lock(channel, args->cookie);
	int err;

	if (IS_ERR(req))
		return PTR_ERR(req);
	err = rmem_fetch_seek(req, args->offset, args->length);
	if (!err && args->flags & RMEM_FILL_ZERO)
		err = rmem_pages_zero(&req->fetch.folios, args->offset, args->length);
	else if (!err)
		err = rmem_pages_copy(&req->fetch.folios, args->offset, args->length,
				      u64_to_user_ptr(args->addr));
	if (!err) {
		req->fetch.cursor += args->length;
		err = rmem_fetch_filled(req, args->flags & RMEM_FILL_MARK);
	}
	rmem_fetch_unlock(req);
	return err;
}

/* Its waiters look for their pages; who still misses one comes back as the first. */
static void fetch_look_again(struct rmem_req *req)
{
	struct rmem_region *region = req->region;

	spin_lock(&region->lock);
	/* it is not over, nor to be asked for again */
	if (req->state == RMEM_REQ_SENT) {
		/* that somebody had joined it, if the daemon is still to be told */
		if (region->channel)
			rmem_ring_unqueue(region->channel, req);
		WRITE_ONCE(req->fetch.early, req->fetch.early + 1);
		if (req->fetch.waiters)
			region->nr_prefetches++;
		req->fetch.waiters = 0;
		req->fetch.retries = 0;
		req->fetch.timed_out = false;
		region->lost = false;
	}
	spin_unlock(&region->lock);
	wake_up_all(&req->wait);
}

static int fetch_early(struct rmem_req *req, const struct rmem_ioc_fill *args)
{
	u64 offset = req->offset + args->offset;
	LIST_HEAD(folios);
	int err;

	if (!args->length || args->offset >= req->length ||
	    args->length > req->length - args->offset || !PAGE_ALIGNED(args->offset))
		return -EINVAL;
	if (!PAGE_ALIGNED(args->length) && args->offset + args->length != req->length)
		return -EINVAL;
	err = rmem_pages_gather(req->region, &folios, offset >> PAGE_SHIFT,
				DIV_ROUND_UP(offset + args->length, PAGE_SIZE), 0);
	if (!err)
		err = rmem_pages_copy(&folios, 0, args->length, u64_to_user_ptr(args->addr));
	if (!err)
		err = fetch_insert(req, &folios, offset, args->flags & RMEM_FILL_MARK);
	if (!err)
		fetch_look_again(req);
	rmem_pages_release(req->region, &folios);
	return err;
}

/* RMEM_IOC_FILL with RMEM_FILL_EARLY */
int rmem_fetch_fill_early(struct rmem_channel *channel, const struct rmem_ioc_fill *args)
{
	struct rmem_req *req;
	int err;

	if (args->flags & RMEM_FILL_ZERO)
		return -EINVAL;
	req = rmem_fetch_lock(channel, args->cookie);
	if (IS_ERR(req))
		return PTR_ERR(req);
	err = fetch_early(req, args);
	rmem_fetch_unlock(req);
	return err;
}

/*
 * Writes
 */

/*
 * A WRITE or ZERO to be; its caller sets the range and submits it, or discards
 * it. From now on it has a number, by which an fsync knows whether a page that
 * left "dirty" for it did so before: that fsync has to wait for it.
 */
struct rmem_req *rmem_write_alloc(struct rmem_region *region, pgoff_t chunk, u8 op, bool sync)
{
	struct rmem_req *req = request_alloc(region, op);

	if (!req)
		return NULL;
	req->chunk = chunk;
	req->write.sync = sync;
	spin_lock(&region->lock);
	req->write.seq = ++region->write_seq;
	list_add_tail(&req->node, &region->taking_list);
	spin_unlock(&region->lock);
	return req;
}

/* A write that found nothing to write. */
void rmem_write_discard(struct rmem_req *req)
{
	struct rmem_region *region = req->region;

	spin_lock(&region->lock);
	list_del_init(&req->node);
	spin_unlock(&region->lock);
	wake_up_all(&region->write_wait);
	rmem_request_discard(req);
}

/* Consumes the caller's reference. */
void rmem_write_submit(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	int err = 0;

	spin_lock(&region->lock);
	req->deadline = jiffies + msecs_to_jiffies(READ_ONCE(region->sync_timeout_ms));
	list_move_tail(&req->node, &region->write_list);
	region->nr_writes++;
	if (region->dead || region->state == RMEM_STATE_FAILED)
		err = region->dead ? -ENODEV : -ESTALE;
	trace_rmem_request_new(req, 0);
	if (!err) {
		request_arm(region, req->deadline);
		request_publish(req);
	}
	spin_unlock(&region->lock);
	if (err)
		request_finish(req, err);
	else
		wake_up_all(&region->write_wait);	/* for writeback_anew() */
}

/*
 * All of them
 */

/* The channel is going away: nothing is outstanding with it any more. */
void rmem_request_forget_channel(struct rmem_region *region)
{
	struct rmem_req *req;

	lockdep_assert_held(&region->lock);
	list_for_each_entry(req, &region->fetch_list, node) {
		if (req->state == RMEM_REQ_DONE)
			continue;
		rmem_ring_unqueue(region->channel, req);
		/* no fill is running: each holds the channel's file open, or its lane */
		req->fetch.cursor = 0;
		fetch_unask(req);
		req->again |= req->state == RMEM_REQ_SENT;
		req->state = RMEM_REQ_QUEUED;
	}
	list_for_each_entry(req, &region->write_list, node) {
		if (req->state == RMEM_REQ_DONE)
			continue;
		rmem_ring_unqueue(region->channel, req);
		req->again |= req->state == RMEM_REQ_SENT;
		req->state = RMEM_REQ_QUEUED;
	}
}

/*
 * rmem_request_unasked() - what its waiter was to ask for, the daemon has to
 * @generation: of the channel that it was published in
 */
void rmem_request_unasked(struct rmem_req *req, u32 generation)
{
	struct rmem_region *region = req->region;

	spin_lock(&region->lock);
	/* a successor has been told anyway */
	if (req->state == RMEM_REQ_SENT && region->channel &&
	    region->channel->generation == generation) {
		fetch_unask(req);
		req->again = true;
		req->state = RMEM_REQ_QUEUED;
		request_publish(req);
	}
	spin_unlock(&region->lock);
}

/* What was asked for on other lanes than @but is the daemon's business. */
void rmem_request_forget_lanes(struct rmem_region *region, u32 but)
{
	struct rmem_req *req;

	lockdep_assert_held(&region->lock);
	if (!region->nr_asked)
		return;
	list_for_each_entry(req, &region->fetch_list, node)
		if (req->fetch.lane != but)
			fetch_unask(req);
}

/*
 * rmem_request_leave_lane() - nobody takes the answers of a lane any more
 *
 * The daemon is told of what was asked for there and is not answered, so that he knows
 * it when he reads on. What finds no room in the ring he will have to ask for himself.
 */
void rmem_request_leave_lane(struct rmem_region *region, struct rmem_channel *channel, u32 lane)
{
	struct rmem_req *req;

	spin_lock(&region->lock);
	list_for_each_entry(req, &region->fetch_list, node) {
		if (region->channel != channel || !region->nr_asked)
			break;
		if (req->fetch.lane != lane || req->state != RMEM_REQ_SENT)
			continue;
		req->state = RMEM_REQ_QUEUED;
		if (rmem_ring_ask(channel, req, lane))
			continue;
		fetch_unask(req);
		request_publish(req);
	}
	spin_unlock(&region->lock);
}

/* A new channel: publish what is outstanding, oldest first. */
void rmem_request_requeue_all(struct rmem_region *region)
{
	struct rmem_req *req;

	lockdep_assert_held(&region->lock);
	list_for_each_entry(req, &region->fetch_list, node)
		if (req->state == RMEM_REQ_QUEUED)
			request_publish(req);
	list_for_each_entry(req, &region->write_list, node)
		if (req->state == RMEM_REQ_QUEUED)
			request_publish(req);
}

static struct rmem_req *request_outstanding(struct list_head *list)
{
	struct rmem_req *req;

	list_for_each_entry(req, list, node)
		if (req->state != RMEM_REQ_DONE)
			return req;
	return NULL;
}

static struct rmem_req *request_first(struct rmem_region *region)
{
	struct rmem_req *req;

	spin_lock(&region->lock);
	req = request_outstanding(&region->fetch_list) ?:
	      request_outstanding(&region->write_list);
	if (req)
		kref_get(&req->ref);
	spin_unlock(&region->lock);
	return req;
}

/*
 * The region has failed or is being unmade: no request can be answered. Of a
 * dead one nothing stays, not even what the retry of a fault would learn.
 */
void rmem_request_fail_all(struct rmem_region *region, int error)
{
	struct rmem_req *req;

	while ((req = request_first(region))) {
		request_finish(req, error);
		rmem_request_put(req);
	}
	if (!region->dead)
		return;
	spin_lock(&region->lock);
	while ((req = list_first_entry_or_null(&region->fetch_list, struct rmem_req, node))) {
		fetch_unlink(req);
		rmem_request_put(req);
	}
	spin_unlock(&region->lock);
}

/*
 * rmem_request_abort() - whoever waits now gets an error
 *
 * What comes meanwhile is not waited for: as many as there were, oldest first.
 */
void rmem_request_abort(struct rmem_region *region)
{
	struct rmem_req *req;
	unsigned long count = 0;

	rmem_room_abort(region);
	spin_lock(&region->lock);
	list_for_each_entry(req, &region->fetch_list, node)
		count++;
	list_for_each_entry(req, &region->write_list, node)
		count++;
	spin_unlock(&region->lock);
	while (count-- && (req = request_first(region))) {
		request_finish(req, -EIO);
		rmem_request_put(req);
	}
}

/*
 * Deadlines: whatever the daemon does, no folio stays under writeback past the
 * sync timeout, and no task waits past the fault timeout unless it shall.
 */

/* Takes one request that is past its deadline, or tells when the next one is. */
static struct rmem_req *request_overdue(struct rmem_region *region, unsigned long *next,
					bool *again, bool *event)
{
	struct rmem_req *req;

	lockdep_assert_held(&region->lock);
	list_for_each_entry(req, &region->fetch_list, node) {
		if (req->state != RMEM_REQ_DONE &&
		    (!req->fetch.waiters || req->fetch.timed_out))
			continue;
		if (time_before(jiffies, req->deadline)) {
			*next = *again ? min(*next, req->deadline) : req->deadline;
			*again = true;
			continue;
		}
		if (req->state != RMEM_REQ_DONE) {
			req->fetch.timed_out = true;
			*event = true;
			if (READ_ONCE(region->on_loss) == RMEM_ON_LOSS_WAIT) {
				atomic64_inc(&region->errors);
				continue;
			}
			region->lost = true;
		}
		return req;
	}
	list_for_each_entry(req, &region->write_list, node) {
		if (req->state == RMEM_REQ_DONE)
			continue;
		if (time_before(jiffies, req->deadline)) {
			*next = *again ? min(*next, req->deadline) : req->deadline;
			*again = true;
			break;
		}
		*event = true;
		return req;
	}
	return NULL;
}

void rmem_request_deadline(struct work_struct *work)
{
	struct rmem_region *region =
		container_of(to_delayed_work(work), struct rmem_region, deadline_work);
	struct rmem_req *req;
	unsigned long next = 0;
	bool again, event = false;

	for (;;) {
		bool tombstone = false;

		again = false;
		spin_lock(&region->lock);
		req = request_overdue(region, &next, &again, &event);
		if (req && req->state == RMEM_REQ_DONE) {
			fetch_unlink(req);
			tombstone = true;
		} else if (req) {
			kref_get(&req->ref);
		}
		spin_unlock(&region->lock);
		if (!req)
			break;
		if (!tombstone)
			request_finish(req, -ETIME);
		rmem_request_put(req);
	}
	if (event)
		rmem_netlink_event(region, RMEM_EVENT_TIMEOUT);
	if (again) {
		spin_lock(&region->lock);
		if (!region->dead)
			request_arm(region, next);
		spin_unlock(&region->lock);
	}
}
