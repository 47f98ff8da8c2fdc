// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ring: the only file that touches memory shared with a daemon.
 *
 * The kernel's own head and the requests' own states are the truth. Of what a
 * daemon writes only tail is read, once, and only to tell how much room there
 * is; a tail that makes no sense means no room. What finds no room waits in
 * channel->notes, ->urgent or ->normal, and goes in when the daemon polls or
 * calls next.
 */
#include <linux/vmalloc.h>

#include "internal.h"
#include "trace.h"

/* So many entries at most wait for a daemon that has not been woken. */
#define RING_LAZY 32

int rmem_ring_alloc(struct rmem_channel *channel, u32 entries)
{
	size_t bytes = PAGE_SIZE + PAGE_ALIGN(entries * sizeof(struct rmem_request));
	struct rmem_ring_header *ring;

	BUILD_BUG_ON(sizeof(struct rmem_ring_header) != 192);
	BUILD_BUG_ON(sizeof(struct rmem_request) != 64);

	ring = vmalloc_user(bytes);
	if (!ring)
		return -ENOMEM;
	ring->magic = RMEM_RING_MAGIC;
	ring->entries = entries;
	ring->entry_bytes = sizeof(struct rmem_request);
	ring->entries_offset = PAGE_SIZE;
	channel->ring = ring;
	channel->ring_bytes = bytes;
	channel->entries = entries;
	return 0;
}

void rmem_ring_free(struct rmem_channel *channel)
{
	vfree(channel->ring);
}

int rmem_ring_mmap(struct rmem_channel *channel, struct vm_area_struct *vma)
{
	if (vma->vm_pgoff || vma->vm_end - vma->vm_start != channel->ring_bytes)
		return -EINVAL;
	if (!(vma->vm_flags & VM_SHARED) || (vma->vm_flags & VM_EXEC))
		return -EINVAL;
	/* a child of the daemon must not keep its parent's channel alive */
	vm_flags_clear(vma, VM_MAYEXEC);
	vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	return remap_vmalloc_range(vma, channel->ring, 0);
}

/* Is there room? The tail only moves forward, and not past the head. */
static bool ring_has_room(struct rmem_channel *channel)
{
	/* pairs with the daemon's release: it has copied out what it passed */
	u32 tail = smp_load_acquire(&channel->ring->tail);

	lockdep_assert_held(&channel->lock);
	if (tail - channel->tail > channel->head - channel->tail)
		return false;
	channel->tail = tail;
	return channel->head - tail < channel->entries;
}

static void ring_put(struct rmem_channel *channel, const struct rmem_request *entry)
{
	struct rmem_request *slots = (void *)channel->ring + PAGE_SIZE;

	lockdep_assert_held(&channel->lock);
	slots[channel->head & (channel->entries - 1)] = *entry;
	channel->head++;
	/* pairs with the daemon's acquire: the entry comes before its index */
	smp_store_release(&channel->ring->head, channel->head);
}

/* @lane: where somebody is about to ask for it, or 0 */
static void ring_put_request(struct rmem_channel *channel, struct rmem_req *req, u32 lane)
{
	struct rmem_request entry = {
		.cookie = rmem_request_cookie(req, channel),
		.region_id = req->region->id,
		.op = req->op,
		.flags = req->again ? RMEM_REQ_AGAIN : 0,
		.offset = req->offset,
		.length = req->length,
		.lane = lane,
	};

	if (req->op == RMEM_OP_FETCH) {
		entry.demand_offset = req->fetch.demand_offset;
		entry.tid = req->fetch.tid;
		if (!READ_ONCE(req->fetch.waiters))
			entry.flags |= RMEM_REQ_PREFETCH;
		else if (READ_ONCE(req->state) == RMEM_REQ_SENT)
			entry.flags |= RMEM_REQ_JOINED;
	} else {
		entry.payload = req->write.payload;
		if (req->write.sync)
			entry.flags |= RMEM_REQ_SYNC;
		if (req->write.last)
			entry.flags |= RMEM_REQ_LAST;
	}
	/* before anybody can answer; it cannot end before channel->lock is free */
	WRITE_ONCE(req->state, RMEM_REQ_SENT);
	trace_rmem_request_sent(req, 0);
	ring_put(channel, &entry);
}

static void ring_put_note(struct rmem_channel *channel, struct rmem_note *note)
{
	struct rmem_request entry = {
		.region_id = note->region_id,
		.op = RMEM_OP_LANE,
		.lane = note->lane,
	};

	list_del_init(&note->node);
	ring_put(channel, &entry);
}

static struct rmem_req *ring_next(struct rmem_channel *channel)
{
	struct rmem_req *req;

	req = list_first_entry_or_null(&channel->urgent, struct rmem_req, pending);
	return req ?: list_first_entry_or_null(&channel->normal, struct rmem_req, pending);
}

/* Is there room, and nobody who has waited for it? */
static bool ring_is_free(struct rmem_channel *channel)
{
	return list_empty(&channel->notes) && !ring_next(channel) && ring_has_room(channel);
}

static void ring_publish(struct rmem_channel *channel)
{
	struct rmem_note *note;
	struct rmem_req *req;

	lockdep_assert_held(&channel->lock);
	while ((note = list_first_entry_or_null(&channel->notes, struct rmem_note, node)) &&
	       ring_has_room(channel))
		ring_put_note(channel, note);
	while ((req = ring_next(channel)) && ring_has_room(channel)) {
		list_del_init(&req->pending);
		ring_put_request(channel, req, 0);
	}
}

/* There is something for the daemon, or may be that he was not woken for. */
void rmem_ring_wake(struct rmem_channel *channel)
{
	wake_up_interruptible_poll(&channel->wait, EPOLLIN | EPOLLRDNORM);
}

/*
 * rmem_ring_queue() - publish a request as soon as there is room
 *
 * A request that waits for room already moves to the place that it deserves
 * now; one that was published is published once more.
 */
void rmem_ring_queue(struct rmem_channel *channel, struct rmem_req *req)
{
	bool urgent = req->op == RMEM_OP_FETCH && req->fetch.waiters;

	lockdep_assert_held(&req->region->lock);
	spin_lock(&channel->lock);
	list_move_tail(&req->pending, urgent ? &channel->urgent : &channel->normal);
	ring_publish(channel);
	spin_unlock(&channel->lock);
	rmem_ring_wake(channel);
}

/*
 * rmem_ring_ask() - publish a request without a wake-up
 * @lane: where somebody has asked for it, or is going to
 *
 * False, and nothing: there is no room, or others wait for it.
 */
bool rmem_ring_ask(struct rmem_channel *channel, struct rmem_req *req, u32 lane)
{
	bool room;

	lockdep_assert_held(&req->region->lock);
	spin_lock(&channel->lock);
	room = ring_is_free(channel);
	if (room)
		ring_put_request(channel, req, lane);
	spin_unlock(&channel->lock);
	return room;
}

/*
 * rmem_ring_miss() - a new request that takes no daemon: only tell that it was made
 * @wake: whether he ought to know soon; forgotten where there is no room
 */
void rmem_ring_miss(struct rmem_channel *channel, struct rmem_req *req, bool wake)
{
	struct rmem_request entry = {
		.region_id = req->region->id,
		.op = RMEM_OP_MISS,
		.offset = req->offset,
		.length = req->length,
		.demand_offset = req->fetch.demand_offset,
		.tid = req->fetch.tid,
	};

	lockdep_assert_held(&req->region->lock);
	spin_lock(&channel->lock);
	WRITE_ONCE(req->state, RMEM_REQ_SENT);
	trace_rmem_request_sent(req, 0);
	if (ring_is_free(channel)) {
		ring_put(channel, &entry);
		wake |= (channel->head - channel->tail) % RING_LAZY == 0;
	}
	spin_unlock(&channel->lock);
	if (wake)
		rmem_ring_wake(channel);
}

/* The daemon has to read on a lane itself. */
void rmem_ring_note(struct rmem_channel *channel, struct rmem_note *note)
{
	spin_lock(&channel->lock);
	list_move_tail(&note->node, &channel->notes);
	ring_publish(channel);
	spin_unlock(&channel->lock);
	rmem_ring_wake(channel);
}

void rmem_ring_unnote(struct rmem_channel *channel, struct rmem_note *note)
{
	spin_lock(&channel->lock);
	list_del_init(&note->node);
	spin_unlock(&channel->lock);
}

/* The request is over or must not be published here any more. */
void rmem_ring_unqueue(struct rmem_channel *channel, struct rmem_req *req)
{
	lockdep_assert_held(&req->region->lock);
	spin_lock(&channel->lock);
	list_del_init(&req->pending);
	spin_unlock(&channel->lock);
}

/* Tells that marked bytes were first used; forgotten where there is no room. */
void rmem_ring_hit(struct rmem_channel *channel, u32 region_id, u64 offset, u32 tid)
{
	struct rmem_request entry = {
		.region_id = region_id,
		.op = RMEM_OP_HIT,
		.offset = offset,
		.demand_offset = offset,
		.tid = tid,
	};

	spin_lock(&channel->lock);
	if (ring_is_free(channel))
		ring_put(channel, &entry);
	spin_unlock(&channel->lock);
	rmem_ring_wake(channel);
}

/* Publishes what waited for room; true if there is something to read. */
bool rmem_ring_poll(struct rmem_channel *channel)
{
	bool readable;

	spin_lock(&channel->lock);
	ring_publish(channel);
	readable = channel->head != READ_ONCE(channel->ring->tail);
	spin_unlock(&channel->lock);
	return readable;
}
