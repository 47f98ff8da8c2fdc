// SPDX-License-Identifier: GPL-2.0-only
/*
 * From dirty to durable.
 *
 * A write request covers the dirty pages of one chunk. Its folios are under
 * writeback until the daemon says that their bytes are durable, or puts them
 * back, or the region's sync timeout does; then they are clean, unless written
 * again meanwhile. Clean therefore means durable.
 *
 * Nothing here reports through mapping_set_error(): a failed write leaves its
 * pages dirty, so nothing is lost that a later fsync would have to hear of.
 * fsync compares the region's failure counts before and after instead.
 */
#include <linux/backing-dev.h>
#include <linux/pagevec.h>
#include <linux/writeback.h>

#include "internal.h"
#include "trace.h"

/* Between two tries of an fsync whose pages were put back to dirty. */
#define RMEM_SYNC_PAUSE max(1ul, msecs_to_jiffies(20))
/* By then a write that began with an fsync has run into its own deadline. */
#define RMEM_SYNC_GRACE msecs_to_jiffies(200)

/* Bytes of the region in a folio's pages: the last page may be partial. */
static u64 writeback_clip(struct rmem_region *region, u64 offset, u64 length)
{
	return min(offset + length, region->size) - offset;
}

/*
 * Takes a locked folio into a write. The byte count moves to "writeback"
 * before the folio leaves "dirty", so that no reader finds it in neither.
 */
static void writeback_take(struct rmem_req *req, struct folio *folio)
{
	struct rmem_region *region = req->region;
	unsigned int pages = 1u << region->chunk_order, before, taken, last;

	atomic64_add(folio_size(folio), &region->writeback_bytes);
	if (!folio_clear_dirty_for_io(folio)) {
		atomic64_sub(folio_size(folio), &region->writeback_bytes);
		return;
	}
	/* nothing lies behind the region's end; let it read as zeros */
	if (folio_pos(folio) + folio_size(folio) > region->size)
		folio_zero_segment(folio, region->size - folio_pos(folio), folio_size(folio));

	before = bitmap_weight(req->write.pages, pages);
	rmem_dirty_take(region, folio, req->write.pages);
	taken = bitmap_weight(req->write.pages, pages) - before;
	folio_start_writeback(folio);

	atomic64_sub(folio_size(folio) - (u64)taken * PAGE_SIZE, &region->writeback_bytes);
	req->write.payload += (u64)taken * PAGE_SIZE;
	last = (region->nr_pages - 1) & (pages - 1);
	if (folio_next_index(folio) == region->nr_pages && test_bit(last, req->write.pages))
		req->write.payload -= (region->nr_pages << PAGE_SHIFT) - region->size;
}

static u64 writeback_bytes(struct rmem_req *req)
{
	return (u64)bitmap_weight(req->write.pages, 1u << req->region->chunk_order) << PAGE_SHIFT;
}

static void writeback_submit(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	unsigned int pages = 1u << region->chunk_order, first, last;

	if (bitmap_empty(req->write.pages, pages)) {
		rmem_dirty_give_back(region, req->chunk, NULL, false);
		rmem_write_discard(req);
		return;
	}
	first = find_first_bit(req->write.pages, pages);
	last = find_last_bit(req->write.pages, pages);
	req->offset = rmem_chunk_offset(region, req->chunk) + ((u64)first << PAGE_SHIFT);
	req->length = writeback_clip(region, req->offset, (u64)(last - first + 1) << PAGE_SHIFT);
	rmem_write_submit(req);
}

static struct rmem_req *writeback_begin(struct rmem_region *region, pgoff_t chunk, bool sync)
{
	struct rmem_req *req;

	if (rmem_dirty_hold(region, chunk))
		return NULL;
	req = rmem_write_alloc(region, chunk, RMEM_OP_WRITE, sync);
	if (!req)
		rmem_dirty_give_back(region, chunk, NULL, false);
	return req;
}

/*
 * rmem_writeback_end() - a write is over, by req->error: clean or dirty again
 *
 * Called once, by whoever made it DONE; may not sleep for a daemon.
 */
void rmem_writeback_end(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	struct address_space *mapping = region->inode->i_mapping;
	unsigned int pages = 1u << region->chunk_order, i = 0;
	pgoff_t base = req->chunk << region->chunk_order;
	int error = req->error;

	if (error) {
		spin_lock(&region->lock);
		if (error == -EAGAIN || error == -ETIME) {
			region->soft_failures++;
		} else {
			region->hard_failures++;
			region->hard_error = error;
		}
		spin_unlock(&region->lock);
	}
	if (req->op != RMEM_OP_WRITE)
		return;

	rmem_dirty_give_back(region, req->chunk, req->write.pages, error);
	for (i = find_first_bit(req->write.pages, pages); i < pages;
	     i = find_next_bit(req->write.pages, pages, i)) {
		struct folio *folio = rmem_pages_get(region, base + i);

		if (WARN_ON_ONCE(!folio)) {
			i++;
			continue;
		}
		if (error)
			filemap_dirty_folio(mapping, folio);
		i = folio_next_index(folio) - base;
		folio_end_writeback(folio);
		folio_put(folio);
	}
	atomic64_sub(writeback_bytes(req), &region->writeback_bytes);
	if (!error)
		atomic64_add(req->write.payload, &region->pushed_bytes);
}

static int writeback_wait_slot(struct rmem_region *region)
{
	return rmem_wait_event(region->write_wait,
			       READ_ONCE(region->nr_writes) < RMEM_WRITES_MAX,
			       MAX_SCHEDULE_TIMEOUT);
}

/* Is the folio in no write, or in one that began after number @seq? */
static bool writeback_anew(struct rmem_region *region, struct folio *folio, u64 seq)
{
	pgoff_t chunk = rmem_chunk_of(region, folio->index);
	unsigned int first = folio->index - (chunk << region->chunk_order);
	unsigned int end = first + folio_nr_pages(folio);
	bool anew = !folio_test_writeback(folio);
	struct rmem_req *req;

	if (anew)
		return true;
	spin_lock(&region->lock);
	list_for_each_entry(req, &region->write_list, node) {
		anew = req->op == RMEM_OP_WRITE && req->chunk == chunk && req->write.seq > seq &&
		       find_next_bit(req->write.pages, end, first) < end;
		if (anew)
			break;
	}
	spin_unlock(&region->lock);
	return anew;
}

/*
 * Waits until the writes of the folio that are older than the walk are over;
 * their deadlines bound that. One that others began since has taken whatever
 * the walk is to write: waiting for those, too, might never end.
 */
static int writeback_wait_folio(struct rmem_region *region, struct folio *folio, u64 seq)
{
	return rmem_wait_event(region->write_wait, writeback_anew(region, folio, seq),
			       MAX_SCHEDULE_TIMEOUT);
}

/*
 * The folio of a walk, into the walk's current write. Submits that one where it
 * must wait, so that what it waits for does not depend on itself.
 */
static int writeback_folio(struct rmem_region *region, struct folio *folio, struct rmem_req **req,
			   struct writeback_control *wbc, u64 seq)
{
	bool sync = wbc->sync_mode == WB_SYNC_ALL;
	pgoff_t chunk = rmem_chunk_of(region, folio->index);
	int err;

	if (!sync && folio_test_writeback(folio))
		return 0;
	/* before a write is begun, which might remain empty */
	if (rmem_protect_settle(region, folio))
		return 0;
	if (*req && (*req)->chunk != chunk) {
		writeback_submit(*req);
		*req = NULL;
	}
	if (sync && folio_test_writeback(folio)) {
		if (*req)
			writeback_submit(*req);
		*req = NULL;
		err = writeback_wait_folio(region, folio, seq);
		if (err)
			return err;
	}
	if (!*req) {
		if (READ_ONCE(region->nr_writes) >= RMEM_WRITES_MAX) {
			if (!sync)
				return -EAGAIN;
			err = writeback_wait_slot(region);
			if (err)
				return err;
		}
		*req = writeback_begin(region, chunk, sync);
		if (!*req)
			return -ENOMEM;
	}
	folio_lock(folio);
	/* what was opened since is left to the next walk: this one is for older stores */
	if (folio->mapping == region->inode->i_mapping && folio_test_dirty(folio) &&
	    !folio_test_writeback(folio) && !rmem_dirty_is_open(region, folio)) {
		rmem_account_cgroup_owner(wbc, folio, folio_size(folio));
		writeback_take(*req, folio);
		wbc->nr_to_write -= folio_nr_pages(folio);
	}
	folio_unlock(folio);
	return 0;
}

/*
 * rmem_writepages() - make writes of dirty pages
 *
 * Background writeback (the flusher, a push) never waits for the daemon, and
 * does nothing while nobody is there to answer. Where it serves an fsync, it
 * waits for what is under way, killably and no longer than its deadline.
 */
int rmem_writepages(struct address_space *mapping, struct writeback_control *wbc)
{
	struct rmem_region *region = mapping->host->i_private;
	bool sync = wbc->sync_mode == WB_SYNC_ALL;
	xa_mark_t tag = PAGECACHE_TAG_DIRTY;
	struct rmem_req *req = NULL;
	struct folio_batch batch;
	pgoff_t index, end;
	unsigned int i;
	int err = 0;
	u64 seq;

	if (READ_ONCE(region->dead))
		return 0;
	if (!sync && (READ_ONCE(region->state) != RMEM_STATE_ACTIVE ||
		      READ_ONCE(region->dropper) == current))
		return 0;
	/* cyclic: go on where the last one stopped, so that the end has its turn */
	index = wbc->range_cyclic ? mapping->writeback_index : wbc->range_start >> PAGE_SHIFT;
	end = wbc->range_cyclic ? ULONG_MAX : wbc->range_end >> PAGE_SHIFT;
	if (sync || wbc->tagged_writepages) {
		tag_pages_for_writeback(mapping, index, end);
		tag = PAGECACHE_TAG_TOWRITE;
	}

	spin_lock(&region->lock);
	seq = region->write_seq;
	spin_unlock(&region->lock);
	folio_batch_init(&batch);
	while (!err && index <= end &&
	       filemap_get_folios_tag(mapping, &index, end, tag, &batch)) {
		for (i = 0; !err && i < folio_batch_count(&batch); i++) {
			err = writeback_folio(region, batch.folios[i], &req, wbc, seq);
			if (!err && !sync && wbc->nr_to_write <= 0)
				err = -EAGAIN;
		}
		folio_batch_release(&batch);
		cond_resched();
	}
	if (req) {
		req->write.last = sync;
		writeback_submit(req);
	}
	rmem_dirty_forget(region);
	if (wbc->range_cyclic)
		mapping->writeback_index = err == -EAGAIN ? index : 0;
	return err == -EAGAIN ? 0 : err;
}

/*
 * rmem_region_discard() - empty the page cache of a dead region
 *
 * Return: the bytes that were written and never became durable. A write is let
 * in under its folio's lock and looks there whether the region is dead, so once
 * every lock was had, the count is exact.
 */
u64 rmem_region_discard(struct rmem_region *region)
{
	struct address_space *mapping = region->inode->i_mapping;
	struct folio_batch batch;
	pgoff_t index = 0;
	unsigned int i;
	u64 lost;

	/* all are over; whoever ended the last ones is still putting pages back */
	wait_event(region->write_wait, !READ_ONCE(region->nr_writes));
	unmap_mapping_range(mapping, 0, 0, 0);
	/* who has not seen that it is dead is overwriting what was absent */
	filemap_invalidate_lock(mapping);
	filemap_invalidate_unlock(mapping);
	folio_batch_init(&batch);
	while (filemap_get_folios(mapping, &index, ULONG_MAX, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++) {
			folio_lock(batch.folios[i]);
			folio_unlock(batch.folios[i]);
		}
		folio_batch_release(&batch);
		cond_resched();
	}
	lost = rmem_dirty_bytes(region);
	truncate_inode_pages(mapping, 0);
	return lost;
}

/* RMEM_IOC_PUSH: like the flusher, now. */
int rmem_region_push(struct rmem_region *region)
{
	return filemap_flush(region->inode->i_mapping);
}

/* Is everything written durable? True only for the moment. */
bool rmem_region_clean(struct rmem_region *region)
{
	return !mapping_tagged(region->inode->i_mapping, PAGECACHE_TAG_DIRTY) &&
	       !READ_ONCE(region->nr_writes) && !atomic64_read(&region->writeback_bytes);
}

/* The next pages at or behind @index that are not durable; false: no more. */
static bool unsafe_next(struct rmem_region *region, pgoff_t index, pgoff_t *first, pgoff_t *end)
{
	struct xarray *pages = &region->inode->i_mapping->i_pages;
	bool found = false;

	while (!found) {
		unsigned long dirty = index, writeback = index;
		struct folio *folio;

		if (!xa_find(pages, &dirty, ULONG_MAX, PAGECACHE_TAG_DIRTY))
			dirty = ULONG_MAX;
		if (!xa_find(pages, &writeback, ULONG_MAX, PAGECACHE_TAG_WRITEBACK))
			writeback = ULONG_MAX;
		index = max(index, min(dirty, writeback));
		if (index >= region->nr_pages)
			return false;
		folio = rmem_pages_get(region, index);
		if (!folio) {	/* durable and evicted meanwhile */
			index++;
			continue;
		}
		rmem_protect_settle(region, folio);
		*first = index;
		*end = folio_next_index(folio);
		found = folio_test_writeback(folio) ||
			(folio_test_dirty(folio) &&
			 rmem_dirty_run(region, folio, index, first, end));
		index = folio_next_index(folio);
		folio_put(folio);
	}
	return true;
}

/* RMEM_IOC_UNSAFE */
int rmem_region_unsafe(struct rmem_region *region, struct rmem_ioc_unsafe *args)
{
	struct rmem_run __user *runs = u64_to_user_ptr(args->runs);
	pgoff_t first, end = args->offset >> PAGE_SHIFT;
	struct rmem_run run = {};
	u32 count = 0;

	while (unsafe_next(region, end, &first, &end)) {
		u64 offset = (u64)first << PAGE_SHIFT;
		u64 length = writeback_clip(region, offset, (u64)(end - first) << PAGE_SHIFT);

		if (run.length && offset == run.offset + run.length) {
			run.length += length;
		} else {
			if (run.length && copy_to_user(&runs[count++], &run, sizeof(run)))
				return -EFAULT;
			run = (struct rmem_run) { .offset = offset, .length = length };
			if (count == args->run_count)
				break;
		}
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	args->offset = region->size;
	if (count == args->run_count)
		args->offset = run.offset;
	else if (run.length && copy_to_user(&runs[count++], &run, sizeof(run)))
		return -EFAULT;
	args->run_count = count;
	return 0;
}

static bool writes_over(struct rmem_region *region, u64 seq, u64 start, u64 end)
{
	struct rmem_req *req;
	bool over = true;

	spin_lock(&region->lock);
	list_for_each_entry(req, &region->write_list, node)
		if (req->write.seq <= seq && rmem_request_overlaps(req, start, end))
			over = false;
	/* its range is not known yet: somewhere in its chunk */
	list_for_each_entry(req, &region->taking_list, node)
		if (req->write.seq <= seq && rmem_chunk_offset(region, req->chunk) < end &&
		    start < rmem_chunk_offset(region, req->chunk + 1))
			over = false;
	spin_unlock(&region->lock);
	return over;
}

struct failures {
	u64 hard, soft, seq;
	int error;
};

static struct failures region_failures(struct rmem_region *region)
{
	struct failures now;

	spin_lock(&region->lock);
	now.hard = region->hard_failures;
	now.soft = region->soft_failures;
	now.seq = region->write_seq;
	now.error = region->hard_error;
	spin_unlock(&region->lock);
	return now;
}

/*
 * rmem_region_sync() - fsync: everything written before is durable
 * @end: last byte
 *
 * Waits killably and no longer than the region's sync timeout, in every state
 * of the region, and goes on trying for as long: writes that were put back to
 * dirty (lost connection, daemon gone) are submitted again.
 *
 * Return: 0, the store's refusal (ENOSPC, EIO, ...), EIO when time is up,
 * ESTALE when the region has failed, EINTR.
 */
int rmem_region_sync(struct rmem_region *region, loff_t start, loff_t end)
{
	struct address_space *mapping = region->inode->i_mapping;
	unsigned long deadline = jiffies + msecs_to_jiffies(READ_ONCE(region->sync_timeout_ms));
	int err;

	for (;;) {
		struct failures before = region_failures(region), after;

		/* unmade by force: what was written is lost */
		if (READ_ONCE(region->dead))
			return -EIO;
		if (!mapping_tagged(mapping, PAGECACHE_TAG_DIRTY) && rmem_region_clean(region))
			return 0;
		err = filemap_fdatawrite_range(mapping, start, end);
		if (err == -ERESTARTSYS || fatal_signal_pending(current))
			return -EINTR;
		if (err)
			return err;
		after = region_failures(region);
		err = rmem_wait_event(region->write_wait,
				      writes_over(region, after.seq, start, (u64)end + 1),
				      max(0L, (long)(deadline - jiffies)) + RMEM_SYNC_GRACE);
		if (err == -ERESTARTSYS)
			return -EINTR;
		after = region_failures(region);
		if (after.hard != before.hard)
			return after.error;
		if (!err && after.soft == before.soft)
			return 0;
		/* put back: give whoever did so a moment before the next try */
		if (time_after_eq(jiffies + RMEM_SYNC_PAUSE, deadline))
			return -EIO;
		if (schedule_timeout_killable(RMEM_SYNC_PAUSE) && fatal_signal_pending(current))
			return -EINTR;
	}
}

static int punch_resident(struct rmem_region *region, u64 offset, u64 end)
{
	struct address_space *mapping = region->inode->i_mapping;
	pgoff_t index = offset >> PAGE_SHIFT, last = (end - 1) >> PAGE_SHIFT;
	struct folio_batch batch;
	unsigned int i;
	int err = 0;

	folio_batch_init(&batch);
	while (!err && index <= last && filemap_get_folios(mapping, &index, last, &batch)) {
		for (i = 0; !err && i < folio_batch_count(&batch); i++) {
			struct folio *folio = batch.folios[i];
			u64 from = max_t(u64, offset, folio_pos(folio));
			u64 to = min_t(u64, end, folio_pos(folio) + folio_size(folio));
			pgoff_t first = from >> PAGE_SHIFT;

			folio_lock(folio);
			if (READ_ONCE(region->dead))
				err = -EIO;
			else if (folio->mapping == mapping)
				err = rmem_dirty_set(region, first,
						     ((to - 1) >> PAGE_SHIFT) - first + 1);
			if (folio->mapping == mapping && !err) {
				folio_zero_range(folio, from - folio_pos(folio), to - from);
				folio_mark_dirty(folio);
			}
			folio_unlock(folio);
			cond_resched();
		}
		folio_batch_release(&batch);
		if (fatal_signal_pending(current))
			err = -EINTR;
	}
	return err;
}

/*
 * rmem_region_punch() - the range reads as zeros from now on, durably
 * @offset: first byte
 * @end: byte behind the last
 *
 * Resident pages are zeroed and dirty, as by a write; for the others the store
 * is told. Bytes fetched before the store has done so are not let in: fills
 * that touch the range are fetched again until then. What is written meanwhile
 * may reach the store before the zeros: such writes are put back.
 */
int rmem_region_punch(struct rmem_region *region, u64 offset, u64 end)
{
	struct address_space *mapping = region->inode->i_mapping;
	struct rmem_punch punch = { .offset = offset, .end = end };
	struct rmem_req *req, *fetch, *write;
	int err;

	/* a region that cannot carry it out keeps its bytes */
	if (READ_ONCE(region->state) == RMEM_STATE_FAILED)
		return READ_ONCE(region->dead) ? -EIO : -ESTALE;
	filemap_invalidate_lock(mapping);
	spin_lock(&region->lock);
	list_add(&punch.node, &region->punches);
	spin_unlock(&region->lock);
	filemap_invalidate_unlock(mapping);

	err = punch_resident(region, offset, end);
	if (err)
		goto out;
	req = rmem_write_alloc(region, rmem_chunk_of(region, offset >> PAGE_SHIFT),
			       RMEM_OP_ZERO, true);
	if (!req) {
		err = -ENOMEM;
		goto out;
	}
	req->offset = offset;
	req->length = end - offset;
	req->write.last = true;
	kref_get(&req->ref);
	rmem_write_submit(req);
	/* its deadline bounds the wait */
	err = rmem_wait_event(req->wait, READ_ONCE(req->state) == RMEM_REQ_DONE,
			      MAX_SCHEDULE_TIMEOUT);
	if (!err)
		err = req->error == -ETIME || req->error == -EAGAIN ? -EIO : req->error;
	rmem_request_put(req);
out:
	spin_lock(&region->lock);
	list_del(&punch.node);
	list_for_each_entry(fetch, &region->fetch_list, node)
		if (fetch->state != RMEM_REQ_DONE && rmem_request_overlaps(fetch, offset, end))
			fetch->fetch.stale = true;
	list_for_each_entry(write, &region->write_list, node)
		if (write->op == RMEM_OP_WRITE && rmem_request_overlaps(write, offset, end))
			write->write.punched = true;
	spin_unlock(&region->lock);
	if (!err)
		err = rmem_region_sync(region, offset, end - 1);
	return err == -ERESTARTSYS ? -EINTR : err;
}
