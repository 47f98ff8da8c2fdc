// SPDX-License-Identifier: GPL-2.0-only
/*
 * Room: how much of a region may be resident, and how much may be at risk.
 *
 * The resident limit is kept by reservation. A fetch reserves the pages of its
 * chunk before anybody is asked for them, and what is resident and what is
 * reserved together never exceed the limit; so the evictor works for the task
 * that faults, before the fetch, and filling never finds the region full. A
 * prefetch finds room or is not made, unless it is said to be worth an eviction.
 *
 * The dirty limit bounds the pages that are not durable (dirty.c).
 *
 * A memory cgroup bounds what its tasks have in every region. Who writes faster than
 * is pushed may find it full of dirty pages, and waits for some to become durable.
 *
 * Where room cannot be made, for all is dirty, locked or pinned, the task waits
 * as for a missing page: killably, without mmap_lock, and by the region's loss
 * policy once nothing became durable for the fault timeout.
 */
#include <linux/interval_tree_generic.h>
#include <linux/pagevec.h>

#include "internal.h"
#include "trace.h"

/*
 * Pins and mlock end without a word; so whoever waits looks again that often, and
 * pushes what could not be pushed before.
 */
#define RMEM_ROOM_POLL max(1ul, HZ / 10)
/* For the retry of a fault whose wait for room was aborted. */
#define RMEM_ROOM_TOMBSTONE (2 * HZ)
/* Folios in use that an eviction spares before it takes what comes. */
#define RMEM_EVICT_SPARES 64
/* The rest of one, a whole one that gives everybody a chance, and one that takes it. */
#define EVICT_ROUNDS 3

/*
 * The evictor: a clock over the region's folios, in order of their offsets, with
 * a second chance (Corbato, "A paging experiment with the Multics system", 1968).
 * A module cannot see the accessed bits of page tables, so a folio that is mapped
 * is unmapped when the hand passes: who uses it maps it again without a fetch, and
 * who does not has lost nothing by the time the hand comes back. For read(2) and
 * for what has just been fetched PG_referenced says the same.
 */

/* The mappings of the region, as mm/interval_tree.c has them; that is not exported. */
#define vma_first_page(vma) ((vma)->vm_pgoff)
#define vma_last_page(vma) ((vma)->vm_pgoff + vma_pages(vma) - 1)
INTERVAL_TREE_DEFINE(struct vm_area_struct, shared.rb, unsigned long, shared.rb_subtree_last,
		     vma_first_page, vma_last_page, static __maybe_unused, evict_vma)

/* PG_mlocked is not kept for large folios of files. */
static bool evict_is_mlocked(struct address_space *mapping, struct folio *folio)
{
	struct vm_area_struct *vma;
	pgoff_t last = folio_next_index(folio) - 1;
	bool locked = false;

	i_mmap_lock_read(mapping);
	for (vma = evict_vma_iter_first(&mapping->i_mmap, folio->index, last); vma && !locked;
	     vma = evict_vma_iter_next(vma, folio->index, last))
		locked = READ_ONCE(vma->vm_flags) & VM_LOCKED;
	i_mmap_unlock_read(mapping);
	return locked;
}

/* The hand is at @folio: shall it go? @spares: how many more may have their chance. */
static bool evict_decide(struct address_space *mapping, struct folio *folio, unsigned int *spares)
{
	bool used = false;

	if (folio_test_dirty(folio) || folio_test_writeback(folio) || folio_test_unevictable(folio))
		return false;
	if (rmem_folio_mapcount(folio)) {
		if (evict_is_mlocked(mapping, folio))
			return false;
		unmap_mapping_pages(mapping, folio->index, folio_nr_pages(folio), false);
		used = true;
	}
	if (folio_test_referenced(folio)) {
		folio_clear_referenced(folio);
		used = true;
	}
	if (!used || !*spares)
		return true;
	--*spares;
	return false;
}

/*
 * Moves the hand on, over some folios at most.
 *
 * Return: pages evicted; @round counts the hand's times round the region.
 */
static unsigned long evict_some(struct rmem_region *region, unsigned long pages,
				unsigned int *spares, unsigned int *round)
{
	struct address_space *mapping = region->inode->i_mapping;
	struct { pgoff_t first, last; } victims[PAGEVEC_SIZE];
	pgoff_t next = region->evict_hand;
	unsigned int count = 0, i, n;
	unsigned long found = 0, gone = 0;
	struct folio_batch batch;

	lockdep_assert_held(&region->evict_mutex);
	folio_batch_init(&batch);
	n = filemap_get_folios(mapping, &next, ULONG_MAX, &batch);
	for (i = 0; i < n && found < pages; i++) {
		struct folio *folio = batch.folios[i];

		region->evict_hand = folio_next_index(folio);
		if (!evict_decide(mapping, folio, spares))
			continue;
		victims[count].first = folio->index;
		victims[count++].last = folio_next_index(folio) - 1;
		found += folio_nr_pages(folio);
	}
	if (!n) {
		region->evict_hand = 0;
		++*round;
	}
	/* our references would keep them, and so would those of this CPU's LRU batches */
	folio_batch_release(&batch);
	for (i = 0; i < count; i++)
		gone += invalidate_mapping_pages(mapping, victims[i].first, victims[i].last);
	cond_resched();
	return gone;
}

/* Pages beyond the resident limit if @pages more come. */
static unsigned long room_lacks(struct rmem_region *region, unsigned long pages)
{
	unsigned long most = READ_ONCE(region->resident_limit) >> PAGE_SHIFT;
	unsigned long used = READ_ONCE(region->inode->i_mapping->nrpages) +
			     READ_ONCE(region->reserved_pages) + pages;

	return most && used > most ? used - most : 0;
}

/*
 * rmem_room_make() - evict until @pages more fit
 *
 * May hold mmap_lock, waits for no daemon. Return: whether they fit now; somebody
 * else may take the room meanwhile.
 */
bool rmem_room_make(struct rmem_region *region, unsigned long pages)
{
	unsigned int spares = RMEM_EVICT_SPARES, round = 0;
	unsigned long lacks, gone = 0;

	might_sleep();
	mutex_lock(&region->evict_mutex);
	/* where all was looked at in vain a moment ago, others need not look as well */
	if (region->evict_vain_after == READ_ONCE(region->writes_over) &&
	    time_before(jiffies, region->evict_vain_until))
		round = EVICT_ROUNDS;
	while ((lacks = room_lacks(region, pages)) && round < EVICT_ROUNDS)
		gone += evict_some(region, lacks, &spares, &round);
	if (lacks && time_after_eq(jiffies, region->evict_vain_until)) {
		region->evict_vain_after = READ_ONCE(region->writes_over);
		region->evict_vain_until = jiffies + RMEM_ROOM_POLL;
	}
	mutex_unlock(&region->evict_mutex);
	atomic64_add(gone << PAGE_SHIFT, &region->evicted_bytes);
	trace_rmem_evict(region, gone, lacks);
	return !lacks;
}

/*
 * rmem_room_reserve() - the pages of a fetch, before it is made
 *
 * Return: false if there is no room. Given back by rmem_room_release().
 */
bool rmem_room_reserve(struct rmem_region *region, unsigned long pages)
{
	lockdep_assert_held(&region->lock);
	if (room_lacks(region, pages))
		return false;
	WRITE_ONCE(region->reserved_pages, region->reserved_pages + pages);
	return true;
}

void rmem_room_release(struct rmem_region *region, unsigned long pages)
{
	lockdep_assert_held(&region->lock);
	WRITE_ONCE(region->reserved_pages, region->reserved_pages - pages);
}

/* @durable_at: the region's, when the wait began */
static bool room_is_there(struct rmem_region *region, enum rmem_room room, unsigned long pages,
			  unsigned long durable_at)
{
	switch (room) {
	case RMEM_ROOM_DIRTY:
		return rmem_dirty_fits(region, pages);
	case RMEM_ROOM_CGROUP:
		return READ_ONCE(region->durable_at) != durable_at || rmem_region_clean(region);
	default:
		return rmem_room_make(region, 1ul << region->chunk_order);
	}
}

/*
 * rmem_room_refused() - why nobody may wait for room now, or 0
 *
 * Asked by those who found none, before they wait. It also tells a fault that
 * comes again how its wait ended.
 */
int rmem_room_refused(struct rmem_region *region)
{
	int err = rmem_region_gone(region);

	if (err)
		return err;
	spin_lock(&region->lock);
	if (region->room_refusals && time_before(jiffies, region->room_refused_until)) {
		region->room_refusals--;
		err = -EIO;
	} else if (region->room_lost && READ_ONCE(region->on_loss) != RMEM_ON_LOSS_WAIT) {
		atomic64_inc(&region->errors);
		err = -ETIME;
	}
	spin_unlock(&region->lock);
	return err;
}

/* Nothing became durable for the fault timeout: what the policy says about that. */
static int room_late(struct rmem_region *region)
{
	int err = 0;

	atomic64_inc(&region->errors);
	spin_lock(&region->lock);
	if (READ_ONCE(region->on_loss) != RMEM_ON_LOSS_WAIT) {
		region->room_lost = true;
		err = -ETIME;
	}
	spin_unlock(&region->lock);
	rmem_netlink_event(region, RMEM_EVENT_TIMEOUT);
	return err;
}

/*
 * rmem_room_wait() - wait, killably and freezably, until there is room
 * @pages: for as many, if it is for dirty ones; else for a chunk
 * @retries: the caller cannot carry an error out of its wait; it will come again
 *	and ask rmem_room_refused()
 * @timeout: in jiffies, besides what the region's policy says
 *
 * Return: 0 (look again), ENODEV, ESTALE, EIO (aborted), ETIME, ERESTARTSYS.
 */
int rmem_room_wait(struct rmem_region *region, enum rmem_room room, unsigned long pages,
		   bool retries, long timeout)
{
	unsigned long begin = jiffies, end = begin + timeout, patience;
	unsigned long durable_at = READ_ONCE(region->durable_at);
	unsigned int aborts;
	bool late = false;
	int err;

	spin_lock(&region->lock);
	aborts = region->aborts;
	region->room_waiters += retries;
	spin_unlock(&region->lock);
	atomic_inc(&region->waiting);
	for (;;) {
		unsigned long since = READ_ONCE(region->durable_at);
		u64 seen = READ_ONCE(region->writes_over);

		err = rmem_region_gone(region);
		if (!err && READ_ONCE(region->aborts) != aborts)
			err = -EIO;
		if (err || room_is_there(region, room, pages, durable_at))
			break;
		if (time_before(since, begin))
			since = begin;
		patience = msecs_to_jiffies(READ_ONCE(region->fault_timeout_ms));
		if (!late && time_after(jiffies, since + patience)) {
			late = true;
			err = room_late(region);
		}
		if (!err && timeout != MAX_SCHEDULE_TIMEOUT && time_after_eq(jiffies, end))
			err = -ETIME;
		if (err)
			break;
		rmem_region_push(region);
		err = rmem_wait_event(region->write_wait, READ_ONCE(region->writes_over) != seen,
				      RMEM_ROOM_POLL);
		if (err == -ERESTARTSYS)
			break;
	}
	atomic_dec(&region->waiting);
	spin_lock(&region->lock);
	region->room_waiters -= retries;
	spin_unlock(&region->lock);
	return err;
}

/* For callers that hold no lock and can carry an error: read and write. */
int rmem_room_populate(struct rmem_region *region, enum rmem_room room, unsigned long pages)
{
	int err = rmem_room_refused(region);

	if (!err)
		err = rmem_room_wait(region, room, pages, false, MAX_SCHEDULE_TIMEOUT);
	return rmem_lost(region, err);
}

/* Those who wait get an error; so do the retries of those who cannot carry one. */
void rmem_room_abort(struct rmem_region *region)
{
	spin_lock(&region->lock);
	region->room_refusals = region->room_waiters;
	region->room_refused_until = jiffies + RMEM_ROOM_TOMBSTONE;
	WRITE_ONCE(region->aborts, region->aborts + 1);
	WRITE_ONCE(region->writes_over, region->writes_over + 1);
	spin_unlock(&region->lock);
	wake_up_all(&region->write_wait);
}

/* A write is over; durable or not, it may have made room. */
void rmem_room_write_over(struct rmem_region *region, bool durable)
{
	lockdep_assert_held(&region->lock);
	if (durable) {
		region->room_lost = false;
		WRITE_ONCE(region->durable_at, jiffies);
	}
	WRITE_ONCE(region->writes_over, region->writes_over + 1);
}

static bool push_is_due(struct rmem_region *region)
{
	u64 limit = READ_ONCE(region->dirty_limit), resident = READ_ONCE(region->resident_limit);
	u64 unsafe = (u64)READ_ONCE(region->unsafe_pages) << PAGE_SHIFT;
	u64 threshold = READ_ONCE(region->push_threshold), leaving;

	if (resident && (!limit || resident < limit))
		limit = resident;
	if (limit && unsafe > limit / 2)
		return true;
	if (!threshold)
		return false;
	/* if this counted, page after page would be pushed by itself meanwhile */
	leaving = atomic64_read(&region->writeback_bytes);
	return unsafe > leaving && unsafe - leaving >= threshold;
}

/*
 * rmem_room_push_ahead() - push before a limit is reached
 *
 * From half of the smaller one on, so that who writes slowly never waits; or when
 * so much is dirty as the region's owner wants to push at once.
 */
void rmem_room_push_ahead(struct rmem_region *region)
{
	if (!push_is_due(region) || work_pending(&region->push_work))
		return;
	spin_lock(&region->lock);
	/* whoever unmakes it cancels the work */
	if (!region->dead)
		queue_work(system_unbound_wq, &region->push_work);
	spin_unlock(&region->lock);
}

void rmem_room_push(struct work_struct *work)
{
	rmem_region_push(container_of(work, struct rmem_region, push_work));
}
