// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page cache of a region: what enters it, leaves it and is read from it.
 *
 * One rule makes the rest simple: a folio of a region is in the page cache only
 * with valid contents. Fetched bytes gather in folios that belong to their
 * request alone, and the whole chunk is inserted when its last byte is there; pages
 * that come early (RMEM_FILL_EARLY) gather and are inserted by themselves.
 * So nobody ever waits for a locked, unfilled folio, a hung daemon blocks
 * neither compaction nor truncation, and a fill buffer that lies in the region
 * itself cannot deadlock on a folio lock.
 */
#include <linux/fadvise.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/pagevec.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "internal.h"
#include "trace.h"

gfp_t rmem_pages_gfp(struct address_space *mapping)
{
	return mapping_gfp_constraint(mapping, ~__GFP_FS);
}

/*
 * A cgroup whose pages are all dirty gets room as soon as the daemon has pushed
 * some, so the daemon must not end as the one who calls the OOM killer: it is
 * told ENOMEM and comes again, up to a point.
 */
static gfp_t pages_charge_gfp(struct rmem_req *req)
{
	gfp_t gfp = rmem_pages_gfp(req->region->inode->i_mapping);

	if (req->fetch.starving && READ_ONCE(req->fetch.waiters) &&
	    time_after(jiffies, req->fetch.starving + RMEM_OOM_PATIENCE))
		return gfp;
	return gfp | __GFP_NORETRY | __GFP_NOWARN;
}

/* The folio that holds page @index, with a reference, or NULL. */
struct folio *rmem_pages_get(struct rmem_region *region, pgoff_t index)
{
	return rmem_find_folio(region->inode->i_mapping, index);
}

/* Is it there? For those who may not sleep, or do not want it. */
bool rmem_pages_hold(struct rmem_region *region, pgoff_t index)
{
	void *entry = xa_load(&region->inode->i_mapping->i_pages, index);

	return entry && !xa_is_value(entry);
}

/* Marked bytes are used for the first time: tell the daemon. */
void rmem_pages_hit(struct rmem_region *region, struct folio *folio, pgoff_t index)
{
	if (!folio_test_readahead(folio))
		return;
	folio_clear_readahead(folio);
	spin_lock(&region->lock);
	if (region->channel)
		rmem_ring_hit(region->channel, region->id, (u64)index << PAGE_SHIFT,
			      task_pid_nr(current));
	spin_unlock(&region->lock);
}

/* Out of the list that rmem_pages_gather() has put it into. */
void rmem_pages_unlist(struct rmem_region *region, struct folio *folio)
{
	list_del(&folio->lru);
	atomic64_sub(folio_size(folio), &region->module_bytes);
}

void rmem_pages_release(struct rmem_region *region, struct list_head *folios)
{
	struct folio *folio, *next;

	list_for_each_entry_safe(folio, next, folios, lru) {
		rmem_pages_unlist(region, folio);
		folio_put(folio);
	}
}

void rmem_pages_free(struct rmem_req *req)
{
	rmem_pages_release(req->region, &req->fetch.folios);
}

static struct folio *pages_alloc_one(struct address_space *mapping, pgoff_t index,
				     unsigned long left, unsigned int order)
{
	struct folio *folio;

	/* naturally aligned and no larger than what is left; order 1 is not for files on 6.1 */
	while (order && (order == 1 || (1ul << order) > left ||
			 !IS_ALIGNED(index, 1ul << order)))
		order--;
	for (; order; order = order > 2 ? order - 1 : 0) {
		folio = filemap_alloc_folio(rmem_pages_gfp(mapping) | __GFP_NORETRY | __GFP_NOWARN,
					    order);
		if (folio)
			return folio;
	}
	return filemap_alloc_folio(rmem_pages_gfp(mapping), 0);
}

/*
 * rmem_pages_gather() - folios for the pages from @index to before @end, outside of the
 * page cache
 * @folios: an empty list; to be given to rmem_pages_release()
 * @order: of the largest of them
 *
 * Return: 0 or ENOMEM, and then none.
 */
int rmem_pages_gather(struct rmem_region *region, struct list_head *folios, pgoff_t index,
		      pgoff_t end, unsigned int order)
{
	struct address_space *mapping = region->inode->i_mapping;

	while (index < end) {
		struct folio *folio = pages_alloc_one(mapping, index, end - index, order);

		if (!folio) {
			rmem_pages_release(region, folios);
			return -ENOMEM;
		}
		list_add_tail(&folio->lru, folios);
		atomic64_add(folio_size(folio), &region->module_bytes);
		index += folio_nr_pages(folio);
	}
	return 0;
}

/* Folios for the whole of a fetch, unless it has them already. */
int rmem_pages_alloc(struct rmem_req *req)
{
	pgoff_t index = req->offset >> PAGE_SHIFT;

	if (!list_empty(&req->fetch.folios))
		return 0;
	return rmem_pages_gather(req->region, &req->fetch.folios, index,
				 index + DIV_ROUND_UP(req->length, PAGE_SIZE),
				 req->region->folio_order);
}

/*
 * A daemon's buffer is locked in memory, so the first way is the common one. The
 * other must not fault on a region: nobody but this daemon might answer.
 */
static int pages_copy_from(void *to, const void __user *from, size_t bytes)
{
	if (!copy_from_user_nofault(to, from, bytes))
		return 0;
	if (rmem_fault_would_recurse(from, bytes))
		return -EFAULT;
	return copy_from_user(to, from, bytes) ? -EFAULT : 0;
}

/* Bytes for a fetch's folios, at @offset from their start: zeros where @from is NULL. */
static int pages_set(struct list_head *folios, u64 offset, u64 length, const void __user *from)
{
	struct folio *folio;
	u64 start = 0, end = offset + length;

	list_for_each_entry(folio, folios, lru) {
		long i;

		for (i = 0; i < folio_nr_pages(folio); i++, start += PAGE_SIZE) {
			u64 at = max(start, offset);
			size_t bytes;
			void *to;
			int err = 0;

			if (start + PAGE_SIZE <= offset)
				continue;
			if (start >= end)
				return 0;
			bytes = min(start + PAGE_SIZE, end) - at;
			to = kmap_local_folio(folio, i * PAGE_SIZE + (at - start));
			if (from)
				err = pages_copy_from(to, from + (at - offset), bytes);
			else
				memset(to, 0, bytes);
			kunmap_local(to);
			if (err)
				return err;
		}
		cond_resched();
	}
	return 0;
}

/* Nothing lies behind the end of the region: the rest of its last page is zero. */
static void pages_zero_tail(struct rmem_region *region, struct list_head *folios, u64 offset)
{
	struct folio *folio;

	list_for_each_entry(folio, folios, lru) {
		offset += folio_size(folio);
		if (offset > region->size)
			folio_zero_segment(folio, folio_size(folio) - (offset - region->size),
					   folio_size(folio));
	}
}

int rmem_pages_copy(struct list_head *folios, u64 offset, u64 length, const void __user *from)
{
	return from ? pages_set(folios, offset, length, from) : -EFAULT;
}

int rmem_pages_zero(struct list_head *folios, u64 offset, u64 length)
{
	return pages_set(folios, offset, length, NULL);
}

/* A folio with all of its bytes becomes visible; 0, and it is locked, or what is in the way. */
int rmem_pages_add(struct rmem_region *region, struct folio *folio, pgoff_t index, gfp_t gfp)
{
	folio_mark_uptodate(folio);
	/* not to be evicted before it was used */
	if (READ_ONCE(region->resident_limit))
		__folio_set_referenced(folio);
	return filemap_add_folio(region->inode->i_mapping, folio, index, gfp);
}

/* Not as one folio: some of its pages are resident, or there is no room. Singly. */
static int pages_insert_singly(struct rmem_req *req, struct folio *folio, pgoff_t index)
{
	struct rmem_region *region = req->region;
	struct address_space *mapping = region->inode->i_mapping;
	long i;

	for (i = 0; i < folio_nr_pages(folio); i++) {
		struct folio *single;
		int err;

		if (rmem_pages_hold(region, index + i))
			continue;
		single = filemap_alloc_folio(rmem_pages_gfp(mapping), 0);
		if (!single)
			return -ENOMEM;
		copy_highpage(folio_page(single, 0), folio_page(folio, i));
		folio_mark_uptodate(single);
		err = filemap_add_folio(mapping, single, index + i, pages_charge_gfp(req));
		if (!err) {
			folio_unlock(single);
			atomic64_add(PAGE_SIZE, &region->fetched_bytes);
		}
		folio_put(single);
		if (err && err != -EEXIST)
			return err;
	}
	return 0;
}

static struct mem_cgroup *pages_payer(struct rmem_req *req)
{
	struct rmem_region *region = req->region;

	spin_lock(&region->lock);
	if (!req->fetch.memcg)
		req->fetch.memcg = rmem_region_payer(region);
	spin_unlock(&region->lock);
	return req->fetch.memcg;
}

/*
 * A small folio waits in this CPU's batch before it goes to the LRU, and the
 * batch's reference keeps it from being evicted, which the evictor on another CPU
 * cannot change. Releasing a batch of folios is the way for a module to drain it.
 */
static void pages_drain(struct rmem_region *region, pgoff_t index)
{
	struct folio *folio = rmem_pages_get(region, index);
	struct folio_batch batch;

	if (!folio)
		return;
	folio_batch_init(&batch);
	folio_batch_add(&batch, folio);
	folio_batch_release(&batch);
}

/*
 * rmem_pages_insert() - what was fetched becomes visible
 * @folios: of the fetch, from @offset of the region on; those that were not reached remain
 * @mark: tell the daemon when it is first used
 *
 * Pages that are resident are newer or the same and stay. The memory cgroup of
 * the task that waited first is charged, for a prefetch that of the region's
 * first user, and without users the daemon's own.
 *
 * Return: 0 or ENOMEM; what could be inserted is valid in either case.
 */
int rmem_pages_insert(struct rmem_req *req, struct list_head *folios, u64 offset, bool mark)
{
	struct rmem_region *region = req->region;
	struct mem_cgroup *payer = set_active_memcg(pages_payer(req));
	pgoff_t index = offset >> PAGE_SHIFT;
	struct folio *folio, *next;
	int err = 0;

	pages_zero_tail(region, folios, offset);
	list_for_each_entry_safe(folio, next, folios, lru) {
		long pages = folio_nr_pages(folio);

		rmem_pages_unlist(region, folio);
		err = rmem_pages_add(region, folio, index, pages_charge_gfp(req));
		if (!err) {
			if (mark)
				folio_set_readahead(folio);
			mark = false;
			folio_unlock(folio);
			atomic64_add(pages * PAGE_SIZE, &region->fetched_bytes);
		} else if (pages > 1 && (err == -EEXIST || err == -ENOMEM)) {
			/* a full cgroup finds room for pages sooner than for a large folio */
			err = pages_insert_singly(req, folio, index);
		} else if (err == -EEXIST) {
			err = 0;
		}
		folio_put(folio);
		if (err)
			break;
		index += pages;
	}
	set_active_memcg(payer);
	if (READ_ONCE(region->resident_limit) && !region->folio_order)
		pages_drain(region, offset >> PAGE_SHIFT);
	if (err == -ENOMEM && !req->fetch.starving)
		req->fetch.starving = jiffies ?: 1;
	return err;
}

/* Is every page of the range there? Only a guess without locks. */
bool rmem_pages_resident(struct rmem_region *region, pgoff_t first, pgoff_t count)
{
	XA_STATE(xas, &region->inode->i_mapping->i_pages, first);
	pgoff_t last = min(first + count, region->nr_pages) - 1, next = first;
	void *entry;

	rcu_read_lock();
	xas_for_each(&xas, entry, last) {
		if (xas_retry(&xas, entry))
			continue;
		if (xa_is_value(entry) || xas.xa_index > next)
			break;
		next = folio_next_index(entry);
	}
	rcu_read_unlock();
	return next > last;
}

/*
 * rmem_pages_drop() - evict clean pages, mapped ones too
 *
 * A mapped folio is unmapped first; dirty ones stay (what their PTEs know goes
 * to the folio) and are mapped again at the next touch. fadvise is the one way
 * for a module to have the per-CPU LRU batches drained, whose references keep
 * folios; that it pushes dirty pages on the way is suppressed.
 */
int rmem_pages_drop(struct file *file, u64 offset, u64 length)
{
	struct rmem_region *region = file->private_data;
	int err;

	unmap_mapping_range(file->f_mapping, offset, length, 0);
	WRITE_ONCE(region->dropper, current);
	err = vfs_fadvise(file, offset, length, POSIX_FADV_DONTNEED);
	cmpxchg(&region->dropper, current, NULL);
	return err;
}

static int pages_copy_out(struct rmem_region *region, u64 offset, u64 length, void __user *to)
{
	while (length) {
		size_t bytes = min_t(u64, length, PAGE_SIZE - offset_in_page(offset));
		struct folio *folio = rmem_pages_get(region, offset >> PAGE_SHIFT);
		unsigned long fault;
		void *from;

		/* it cannot have left before the write was over */
		if (!folio)
			return -ENOENT;
		from = kmap_local_folio(folio, offset - folio_pos(folio));
		fault = copy_to_user(to, from, bytes);
		kunmap_local(from);
		folio_put(folio);
		if (fault)
			return -EFAULT;
		offset += bytes;
		length -= bytes;
		to += bytes;
		cond_resched();
	}
	return 0;
}

/*
 * rmem_pages_writeout() - copy a write's pages to the daemon
 *
 * The folios are neither locked nor made stable for it. A store that races
 * with the copy has gone through page_mkwrite since the folio was cleaned, so
 * the page is dirty again and will be written once more.
 */
int rmem_pages_writeout(struct rmem_req *req, struct rmem_ioc_writeout *args)
{
	struct rmem_region *region = req->region;
	struct rmem_run __user *runs = u64_to_user_ptr(args->runs);
	char __user *to = u64_to_user_ptr(args->addr);
	unsigned int pages = 1u << region->chunk_order, first, end;
	pgoff_t base = req->chunk << region->chunk_order;
	u32 count = 0;
	int err;

	if (args->addr_bytes < req->write.payload)
		return -ENOBUFS;
	args->bytes = 0;
	for (first = find_first_bit(req->write.pages, pages); first < pages;
	     first = find_next_bit(req->write.pages, pages, end)) {
		struct rmem_run run = { .offset = (u64)(base + first) << PAGE_SHIFT };

		end = find_next_zero_bit(req->write.pages, pages, first);
		run.length = min((u64)(base + end) << PAGE_SHIFT, region->size) - run.offset;
		if (count == args->run_count)
			return -ENOBUFS;
		err = pages_copy_out(region, run.offset, run.length, to + args->bytes);
		if (err)
			return err;
		if (copy_to_user(&runs[count++], &run, sizeof(run)))
			return -EFAULT;
		args->bytes += run.length;
	}
	args->run_count = count;
	return 0;
}

/* Within a page of the folio. */
static bool pages_all_zero(struct folio *folio, u64 offset, size_t bytes)
{
	void *from = kmap_local_folio(folio, offset - folio_pos(folio));
	bool zero = !memchr_inv(from, 0, bytes);

	kunmap_local(from);
	return zero;
}

static int pages_tell_run(struct rmem_ioc_runs *args, u32 count, const struct rmem_write_run *run)
{
	struct rmem_write_run __user *runs = u64_to_user_ptr(args->runs);

	if (count == args->run_count)
		return -ENOBUFS;
	return copy_to_user(&runs[count], run, sizeof(*run)) ? -EFAULT : 0;
}

/*
 * rmem_pages_runs() - which bytes a write has, without the bytes
 *
 * What is zeros here need not be so when it is told: then it has been written since,
 * and is dirty again, as with rmem_pages_writeout().
 */
int rmem_pages_runs(struct rmem_req *req, struct rmem_ioc_runs *args)
{
	struct rmem_region *region = req->region;
	unsigned int pages = 1u << region->chunk_order, i;
	struct rmem_write_run run = {};
	struct folio *folio = NULL;
	u32 count = 0;
	int err = 0;

	for_each_set_bit(i, req->write.pages, pages) {
		u64 offset = rmem_chunk_offset(region, req->chunk) + ((u64)i << PAGE_SHIFT);
		u64 length = min_t(u64, PAGE_SIZE, region->size - offset);
		u32 flags;

		if (!folio || offset >= folio_pos(folio) + folio_size(folio)) {
			if (folio)
				folio_put(folio);
			folio = rmem_pages_get(region, offset >> PAGE_SHIFT);
			err = folio ? 0 : -ENOENT;
			if (err)
				break;
		}
		flags = pages_all_zero(folio, offset, length) ? RMEM_RUN_ZERO : 0;
		if (run.length && offset == run.offset + run.length && flags == run.flags) {
			run.length += length;
			continue;
		}
		if (run.length) {
			err = pages_tell_run(args, count++, &run);
			if (err)
				break;
		}
		run = (struct rmem_write_run) {
			.offset = offset, .length = length, .flags = flags,
		};
		cond_resched();
	}
	if (folio)
		folio_put(folio);
	if (!err)
		err = pages_tell_run(args, count++, &run);
	if (!err)
		args->run_count = count;
	return err;
}
