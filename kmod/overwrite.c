// SPDX-License-Identifier: GPL-2.0-only
/*
 * Overwriting: a page that is written as a whole is not fetched before.
 *
 * Its bytes gather in a folio of the writer's own, while the writer holds neither a
 * lock nor room, since its buffer may lie anywhere, for instance in the region
 * itself. Complete, the folio enters the page cache as a dirty one. Where a page has
 * become resident meanwhile the writer stops, and writes to it as to any other.
 *
 * A fetch of the chunk that is under way leaves such pages alone
 * (rmem_pages_insert()). It cannot bring back what the store had before, once they
 * have been pushed and evicted: write_overtakes() sees to that.
 */
#include <linux/highmem.h>
#include <linux/uio.h>
#include <linux/writeback.h>

#include "internal.h"

struct overwrite {
	struct rmem_region *region;
	pgoff_t first;			/* of the pages, all in one chunk */
	unsigned long pages;
	u64 bytes;			/* less than the pages hold only at the region's end */
	struct list_head folios;
	bool last_resort;		/* room in the cgroup by the OOM killer, if need be */
};

/*
 * rmem_overwrite_piece() - how to go on with a write
 * @pos: where
 * @bytes: not 0; in: what is left to write; out: the length of the next piece, which
 *	does not leave its chunk
 *
 * Return: whether the piece consists of absent pages as wholes. Only a guess.
 */
bool rmem_overwrite_piece(struct rmem_region *region, u64 pos, u64 *bytes)
{
	pgoff_t chunk = rmem_chunk_of(region, pos >> PAGE_SHIFT);
	u64 end = min(pos + *bytes, rmem_chunk_offset(region, chunk + 1));
	pgoff_t first = pos >> PAGE_SHIFT, index = DIV_ROUND_UP(pos, PAGE_SIZE), last;
	bool absent;

	last = end == region->size ? DIV_ROUND_UP(end, PAGE_SIZE) : end >> PAGE_SHIFT;
	absent = index == first && index < last && !rmem_pages_hold(region, index);
	/* looked at once: it may come or go */
	if (index == first && index < last)
		index++;
	while (index < last && rmem_pages_hold(region, index) != absent)
		index++;
	if (index < last)
		end = (u64)index << PAGE_SHIFT;
	else if (absent)
		end = min(end, (u64)last << PAGE_SHIFT);
	*bytes = end - pos;
	return absent;
}

/* From @from, or zeros. False: not all of it could be read. */
static bool overwrite_gather(struct overwrite *ow, struct iov_iter *from)
{
	u64 left = ow->bytes;
	struct folio *folio;
	long i;

	list_for_each_entry(folio, &ow->folios, lru) {
		for (i = 0; i < folio_nr_pages(folio); i++) {
			struct page *page = folio_page(folio, i);
			size_t bytes = min_t(u64, left, PAGE_SIZE);

			if (!from)
				clear_highpage(page);
			else if (copy_page_from_iter(page, 0, bytes, from) != bytes)
				return false;
			else if (bytes < PAGE_SIZE)
				memzero_page(page, bytes, PAGE_SIZE - bytes);
			left -= bytes;
		}
		cond_resched();
	}
	return true;
}

static void overwrite_unreserve(struct overwrite *ow)
{
	spin_lock(&ow->region->lock);
	rmem_room_release(ow->region, ow->pages);
	spin_unlock(&ow->region->lock);
}

/* Room for the pages, of both kinds; EDQUOT: there is none, of kind @lacks. */
static int overwrite_reserve(struct overwrite *ow, enum rmem_room *lacks)
{
	struct rmem_region *region = ow->region;
	int err;

	spin_lock(&region->lock);
	err = rmem_region_gone(region);
	if (!err) {
		rmem_region_need(region);
		err = rmem_room_reserve(region, ow->pages) ? 0 : -EDQUOT;
	}
	spin_unlock(&region->lock);
	*lacks = RMEM_ROOM_RESIDENT;
	if (err)
		return err;
	err = rmem_dirty_promise(region, rmem_chunk_of(region, ow->first), ow->pages);
	if (err) {
		*lacks = RMEM_ROOM_DIRTY;
		overwrite_unreserve(ow);
	}
	return err;
}

/* Waits for that, as a write to what is resident would. */
static int overwrite_admit(struct overwrite *ow)
{
	enum rmem_room lacks;
	int err;

	do {
		err = overwrite_reserve(ow, &lacks);
		if (err != -EDQUOT)
			return rmem_lost(ow->region, err);
		if (lacks == RMEM_ROOM_DIRTY || !rmem_room_make(ow->region, ow->pages))
			err = rmem_room_populate(ow->region, lacks, ow->pages);
		else
			err = 0;
	} while (!err);
	return err;
}

static int overwrite_insert(struct overwrite *ow, struct folio *folio, pgoff_t index)
{
	struct rmem_region *region = ow->region;
	gfp_t gfp = rmem_pages_gfp(region->inode->i_mapping);
	int err;

	/* a full cgroup finds room for pages sooner than for a large folio */
	if (folio_test_large(folio) || !ow->last_resort)
		gfp |= __GFP_NORETRY | __GFP_NOWARN;
	err = rmem_pages_add(region, folio, index, gfp);
	if (!err) {
		/* what was promised needs no memory */
		rmem_dirty_set(region, index, folio_nr_pages(folio));
		folio_mark_dirty(folio);
		folio_unlock(folio);
	}
	folio_put(folio);
	return err;
}

/* What could enter, in pages from the first on; or an error, and then none has. */
static long overwrite_enter(struct overwrite *ow)
{
	struct rmem_region *region = ow->region;
	struct address_space *mapping = region->inode->i_mapping;
	struct folio *folio, *next;
	long entered = 0;
	int err = 0;

	/* before a punch begins or after it; and before a dead region is emptied, or never */
	filemap_invalidate_lock_shared(mapping);
	if (READ_ONCE(region->dead))
		err = -EIO;
	list_for_each_entry_safe(folio, next, &ow->folios, lru) {
		long pages = folio_nr_pages(folio);

		if (err)
			break;
		rmem_pages_unlist(region, folio);
		err = overwrite_insert(ow, folio, ow->first + entered);
		if (!err)
			entered += pages;
	}
	filemap_invalidate_unlock_shared(mapping);
	if (err == -EEXIST)
		err = 0;
	return entered ?: err;
}

static ssize_t overwrite(struct overwrite *ow, struct iov_iter *from, unsigned int order)
{
	struct rmem_region *region = ow->region;
	size_t before = from ? iov_iter_count(from) : 0;
	ssize_t done = 0;
	int err;

	err = rmem_pages_gather(region, &ow->folios, ow->first, ow->first + ow->pages, order);
	if (err)
		return err;
	if (overwrite_gather(ow, from)) {
		err = overwrite_admit(ow);
		if (!err) {
			done = overwrite_enter(ow);
			rmem_dirty_settle(region, rmem_chunk_of(region, ow->first), ow->pages);
			overwrite_unreserve(ow);
		}
	}
	rmem_pages_release(region, &ow->folios);
	if (done > 0)
		done = min_t(u64, (u64)done << PAGE_SHIFT, ow->bytes);
	if (from)
		iov_iter_revert(from, before - iov_iter_count(from) - max_t(ssize_t, done, 0));
	return err ?: done;
}

/* Is it this task that tries again? One at a time, or the others would take its room. */
static bool overwrite_turn(struct rmem_region *region)
{
	bool mine;

	spin_lock(&region->lock);
	if (!region->overwriter)
		region->overwriter = current;
	mine = region->overwriter == current;
	spin_unlock(&region->lock);
	return mine;
}

static void overwrite_turn_over(struct rmem_region *region)
{
	spin_lock(&region->lock);
	region->overwriter = NULL;
	spin_unlock(&region->lock);
	wake_up_all(&region->write_wait);
}

/*
 * The writer's cgroup has no room. What is dirty there has left it once it is durable, so
 * the writer waits for that, by the region's policy: a server that is away is no reason to
 * be killed. The kernel itself waits for nothing here, and throttles too late: after a
 * task's first write, and by figures of the cgroup that may be two seconds old.
 *
 * Then it tries again, at last by the OOM killer: where nothing is to become durable any
 * more, or has long without making room here.
 */
static ssize_t overwrite_starving(struct overwrite *ow, struct iov_iter *from)
{
	struct rmem_region *region = ow->region;
	unsigned long since = jiffies, began;
	ssize_t done;
	int err;

	err = rmem_wait_event(region->write_wait, overwrite_turn(region), MAX_SCHEDULE_TIMEOUT);
	if (err)
		return err;
	do {
		began = jiffies;
		done = rmem_room_populate(region, RMEM_ROOM_CGROUP, ow->pages);
		if (done)
			break;
		if (time_after(jiffies, began + RMEM_OOM_PATIENCE))
			since = jiffies;
		ow->last_resort = rmem_region_clean(region) ||
				  time_after(jiffies, since + RMEM_OOM_PATIENCE);
		done = overwrite(ow, from, 0);
	} while (done == -ENOMEM && !ow->last_resort);
	overwrite_turn_over(region);
	return done;
}

/*
 * rmem_overwrite() - write a piece that rmem_overwrite_piece() has found absent
 * @from: its bytes, and more; NULL: zeros
 *
 * For callers that hold no lock. Return: how many bytes were written; 0: it must be
 * written in the ordinary way; EINTR, EIO, ESTALE, ERESTARTSYS, negative.
 */
ssize_t rmem_overwrite(struct rmem_region *region, u64 pos, u64 bytes, struct iov_iter *from)
{
	struct overwrite ow = {
		.region = region,
		.first = pos >> PAGE_SHIFT,
		.pages = DIV_ROUND_UP(bytes, PAGE_SIZE),
		.bytes = bytes,
		.folios = LIST_HEAD_INIT(ow.folios),
	};
	ssize_t done;

	if (fatal_signal_pending(current))
		return -EINTR;
	done = overwrite(&ow, from, region->folio_order);
	if (done == -ENOMEM && region->folio_order)
		done = overwrite(&ow, from, 0);
	if (done == -ENOMEM)
		done = overwrite_starving(&ow, from);
	if (done > 0) {
		rmem_room_push_ahead(region);
		balance_dirty_pages_ratelimited(region->inode->i_mapping);
	}
	return done == -ENOMEM ? 0 : done;
}

/*
 * rmem_overwrite_range() - RMEM_IOC_OVERWRITE: absent pages become dirty ones of zeros
 *
 * Those from @offset to before @end, as wholes. Return: 0, EINTR, EIO, ESTALE.
 */
int rmem_overwrite_range(struct rmem_region *region, u64 offset, u64 end)
{
	u64 pos = round_up(offset, PAGE_SIZE), bytes;

	for (; pos < end; pos += bytes) {
		ssize_t n = 0;

		bytes = end - pos;
		if (rmem_overwrite_piece(region, pos, &bytes))
			n = rmem_overwrite(region, pos, bytes, NULL);
		if (n < 0)
			return n == -ERESTARTSYS ? -EINTR : n;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}
