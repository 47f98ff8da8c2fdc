// SPDX-License-Identifier: GPL-2.0-only
/*
 * The dirty log: which pages of a dirty folio were written.
 *
 * The folio's dirty flag says that something is to be pushed, the log says
 * what: one bit a page, so that a 256 KiB folio with one written page costs
 * one page on the wire. A bit is set under the folio's lock, before the folio is
 * marked dirty, by page_mkwrite and write_begin, who know the page.
 *
 * Direct I/O and the like write through a reference taken earlier and mark the
 * folio dirty afterwards without saying which page. So where somebody else holds
 * a reference after the folio was write-protected, its pages are remembered as
 * held, and pushed again with whatever makes the folio dirty next. A dirty folio
 * without any bit is pushed whole.
 *
 * The log also knows which pages a write has under way, hence what is at risk:
 * the pages that are written or being written, each counted once. A dirty limit
 * bounds that.
 *
 * Pages that were opened (protect.c) may be stored to without a fault. They count as
 * written until their folio is closed, when page tables tell which of them are.
 */
#include <linux/pagevec.h>
#include <linux/slab.h>

#include "internal.h"

/* Chunks that may have open pages. */
#define DIRTY_OPEN XA_MARK_0

/* One bit a page of the chunk. */
struct rmem_dirty {
	unsigned int under_way;		/* writes that may give bits back */
	unsigned long *writing;		/* taken by a write that is not over */
	unsigned long *held;		/* were taken while somebody held their folio */
	unsigned long *open;		/* may have been stored to, for all the log knows */
	unsigned long written[];	/* since they were last taken */
};

static size_t dirty_size(const struct rmem_region *region)
{
	return struct_size((struct rmem_dirty *)NULL, written,
			   4 * BITS_TO_LONGS(1u << region->chunk_order));
}

static struct rmem_dirty *dirty_alloc(struct rmem_region *region)
{
	size_t longs = BITS_TO_LONGS(1u << region->chunk_order);
	struct rmem_dirty *dirty = kzalloc(dirty_size(region), GFP_NOFS);

	if (!dirty)
		return NULL;
	dirty->writing = dirty->written + longs;
	dirty->held = dirty->writing + longs;
	dirty->open = dirty->held + longs;
	return dirty;
}

/* A folio's first page, in its chunk. */
static unsigned int dirty_first(const struct rmem_region *region, const struct folio *folio)
{
	return folio->index & ((1u << region->chunk_order) - 1);
}

/* The chunk's log, made if there is none; NULL without memory. */
static struct rmem_dirty *dirty_get_locked(struct rmem_region *region, pgoff_t chunk)
	__acquires(&region->dirty_lock)
{
	struct rmem_dirty *dirty, *fresh;
	int err;

	for (;;) {
		spin_lock(&region->dirty_lock);
		dirty = xa_load(&region->dirty, chunk);
		if (dirty)
			return dirty;
		spin_unlock(&region->dirty_lock);

		fresh = dirty_alloc(region);
		if (!fresh)
			break;
		err = xa_insert(&region->dirty, chunk, fresh, GFP_NOFS);
		if (err)
			kfree(fresh);
		else
			atomic64_add(dirty_size(region), &region->module_bytes);
		if (err && err != -EBUSY)
			break;
	}
	spin_lock(&region->dirty_lock);
	return NULL;
}

static void dirty_put(struct rmem_region *region, pgoff_t chunk, struct rmem_dirty *dirty)
{
	unsigned int pages = 1u << region->chunk_order;

	lockdep_assert_held(&region->dirty_lock);
	if (dirty->under_way || !bitmap_empty(dirty->written, pages) ||
	    !bitmap_empty(dirty->held, pages) || !bitmap_empty(dirty->open, pages))
		return;
	xa_erase(&region->dirty, chunk);
	kfree(dirty);
	atomic64_sub(dirty_size(region), &region->module_bytes);
}

/* The written pages of [@at, @end) at or behind @at, and those held; @end: none. */
static unsigned int dirty_next(const struct rmem_dirty *dirty, unsigned int at, unsigned int end)
{
	return min(find_next_bit(dirty->written, end, at), find_next_bit(dirty->held, end, at));
}

/* Of word @w, the bits from @first to before @end. */
static unsigned long dirty_mask(unsigned int w, unsigned int first, unsigned int end)
{
	unsigned long mask = ~0ul;

	if (w == BIT_WORD(first))
		mask &= BITMAP_FIRST_WORD_MASK(first);
	if (w == BIT_WORD(end - 1))
		mask &= BITMAP_LAST_WORD_MASK(end);
	return mask;
}

/* Those of a word's pages, from @at to before @end, that are not at risk yet. */
static unsigned long dirty_fresh_word(const struct rmem_dirty *dirty, unsigned int w,
				      unsigned int at, unsigned int end)
{
	return ~(dirty->written[w] | dirty->writing[w] | dirty->open[w]) & dirty_mask(w, at, end);
}

/* How many of the pages are not at risk yet. */
static unsigned int dirty_fresh(const struct rmem_dirty *dirty, unsigned int at, unsigned int count)
{
	unsigned int end = at + count, fresh = 0, w;

	for (w = BIT_WORD(at); w <= BIT_WORD(end - 1); w++)
		fresh += hweight_long(dirty_fresh_word(dirty, w, at, end));
	return fresh;
}

/* Where the pages at risk begin that lie in front of page @end without a gap. */
static unsigned int dirty_risk_begin(const struct rmem_dirty *dirty, unsigned int end)
{
	while (end) {
		unsigned int w = BIT_WORD(end - 1);
		unsigned long fresh = dirty_fresh_word(dirty, w, 0, end);

		if (fresh)
			return w * BITS_PER_LONG + __fls(fresh) + 1;
		end = w * BITS_PER_LONG;
	}
	return 0;
}

static void dirty_count(struct rmem_region *region, long pages)
{
	lockdep_assert_held(&region->dirty_lock);
	WRITE_ONCE(region->unsafe_pages, region->unsafe_pages + pages);
}

/*
 * May @count pages that are not at risk yet be written? Without the lock a guess.
 *
 * Where nothing is left to push, the count is wrong (memory that failed took a
 * dirty page away), and who waited for it would wait forever.
 */
bool rmem_dirty_fits(struct rmem_region *region, unsigned long count)
{
	u64 limit = READ_ONCE(region->dirty_limit);

	unsigned long promised = READ_ONCE(region->promised_pages);

	count += READ_ONCE(region->unsafe_pages) + promised;
	return !limit || (u64)count << PAGE_SHIFT <= limit ||
	       (!promised && rmem_region_clean(region));
}

static int dirty_add(struct rmem_region *region, pgoff_t first, unsigned long count, bool limited)
{
	unsigned int at = first & ((1u << region->chunk_order) - 1), fresh;
	pgoff_t chunk = rmem_chunk_of(region, first);
	struct rmem_dirty *dirty = dirty_get_locked(region, chunk);
	int err = -ENOMEM;

	if (dirty) {
		fresh = dirty_fresh(dirty, at, count);
		err = limited && fresh && !rmem_dirty_fits(region, fresh) ? -EDQUOT : 0;
		if (!err) {
			bitmap_set(dirty->written, at, count);
			dirty_count(region, fresh);
		}
		dirty_put(region, chunk, dirty);
	}
	spin_unlock(&region->dirty_lock);
	return err;
}

/*
 * rmem_dirty_set() - pages are about to be written
 *
 * The range must lie within one chunk; its folio is locked, and is marked dirty
 * before it is unlocked. Return: 0 or ENOMEM.
 */
int rmem_dirty_set(struct rmem_region *region, pgoff_t first, unsigned long count)
{
	return dirty_add(region, first, count, false);
}

/*
 * rmem_dirty_admit() - as rmem_dirty_set(), within the region's dirty limit
 *
 * Pages that are at risk already are always let in. Return: 0, ENOMEM, EDQUOT.
 */
int rmem_dirty_admit(struct rmem_region *region, pgoff_t first, unsigned long count)
{
	int err = dirty_add(region, first, count, true);

	if (!err)
		rmem_room_push_ahead(region);
	return err;
}

/*
 * rmem_dirty_promise() - room for pages that do not exist yet, within the dirty limit
 *
 * Pages of @chunk. Until rmem_dirty_settle(), rmem_dirty_set() of them needs no memory
 * and does not exceed the limit. Return: 0, ENOMEM, EDQUOT.
 */
int rmem_dirty_promise(struct rmem_region *region, pgoff_t chunk, unsigned long count)
{
	struct rmem_dirty *dirty = dirty_get_locked(region, chunk);
	int err = -ENOMEM;

	if (dirty) {
		err = rmem_dirty_fits(region, count) ? 0 : -EDQUOT;
		if (!err) {
			dirty->under_way++;
			WRITE_ONCE(region->promised_pages, region->promised_pages + count);
		}
		dirty_put(region, chunk, dirty);
	}
	spin_unlock(&region->dirty_lock);
	return err;
}

/* They exist by now and are set, or never will. */
void rmem_dirty_settle(struct rmem_region *region, pgoff_t chunk, unsigned long count)
{
	spin_lock(&region->dirty_lock);
	WRITE_ONCE(region->promised_pages, region->promised_pages - count);
	spin_unlock(&region->dirty_lock);
	rmem_dirty_give_back(region, chunk, NULL, false);
}

/* Would rmem_dirty_admit() of this page say EDQUOT? A guess, too. */
bool rmem_dirty_is_full(struct rmem_region *region, pgoff_t index)
{
	unsigned int at = index & ((1u << region->chunk_order) - 1);
	struct rmem_dirty *dirty;
	bool full;

	if (rmem_dirty_fits(region, 1))
		return false;
	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, index));
	full = !dirty || dirty_fresh(dirty, at, 1);
	spin_unlock(&region->dirty_lock);
	return full;
}

/*
 * rmem_dirty_hold() - a write begins to take bits of its chunk
 *
 * From now on giving bits back needs no memory. Undone by
 * rmem_dirty_give_back(). Return: 0 or ENOMEM.
 */
int rmem_dirty_hold(struct rmem_region *region, pgoff_t chunk)
{
	struct rmem_dirty *dirty = dirty_get_locked(region, chunk);

	if (dirty)
		dirty->under_way++;
	spin_unlock(&region->dirty_lock);
	return dirty ? 0 : -ENOMEM;
}

/* Is the folio referenced by more than the page cache, the mappings, and our caller? */
bool rmem_dirty_others(struct folio *folio)
{
	return folio_ref_count(folio) > folio_nr_pages(folio) + rmem_folio_mapcount(folio) + 1;
}

/*
 * rmem_dirty_before() - how many pages in front of page @index are at risk, without a gap
 * @most: no more are looked at
 */
unsigned long rmem_dirty_before(struct rmem_region *region, pgoff_t index, unsigned long most)
{
	unsigned int pages = 1u << region->chunk_order, end, begin;
	struct rmem_dirty *dirty;
	unsigned long run = 0;

	most = min_t(pgoff_t, most, index);
	spin_lock(&region->dirty_lock);
	while (run < most) {
		dirty = xa_load(&region->dirty, rmem_chunk_of(region, index - run - 1));
		if (!dirty)
			break;
		end = ((index - run - 1) & (pages - 1)) + 1;
		begin = dirty_risk_begin(dirty, end);
		run += end - begin;
		if (begin)
			break;
	}
	spin_unlock(&region->dirty_lock);
	return min(run, most);
}

/*
 * rmem_dirty_open() - a folio is about to be opened
 * @folio: locked, neither open, dirty, nor under writeback
 *
 * Return: 0 or ENOMEM.
 */
int rmem_dirty_open(struct rmem_region *region, struct folio *folio)
{
	unsigned int first = dirty_first(region, folio);
	unsigned int end = first + folio_nr_pages(folio), w;
	pgoff_t chunk = rmem_chunk_of(region, folio->index);
	struct rmem_dirty *dirty = dirty_get_locked(region, chunk);

	if (dirty) {
		dirty_count(region, dirty_fresh(dirty, first, end - first));
		for (w = BIT_WORD(first); w <= BIT_WORD(end - 1); w++) {
			/* some may be left of a folio that was open and has been evicted */
			unsigned long opened = dirty_mask(w, first, end) & ~dirty->open[w];

			dirty->open[w] |= opened;
			WRITE_ONCE(region->open_pages, region->open_pages + hweight_long(opened));
		}
		xa_set_mark(&region->dirty, chunk, DIRTY_OPEN);
	}
	spin_unlock(&region->dirty_lock);
	return dirty ? 0 : -ENOMEM;
}

/* The pages are open no longer; of those that were, @stored are written. */
static void dirty_close(struct rmem_region *region, struct rmem_dirty *dirty, unsigned int first,
			unsigned int end, const unsigned long *stored)
{
	unsigned int fresh = dirty_fresh(dirty, first, end - first), closed = 0, w;

	for (w = BIT_WORD(first); w <= BIT_WORD(end - 1); w++) {
		unsigned long open = dirty->open[w] & dirty_mask(w, first, end);

		dirty->open[w] &= ~open;
		dirty->written[w] |= open & stored[w];
		closed += hweight_long(open);
	}
	WRITE_ONCE(region->open_pages, region->open_pages - closed);
	dirty_count(region, (long)fresh - dirty_fresh(dirty, first, end - first));
}

/*
 * rmem_dirty_close() - a folio is not open any more
 * @folio: locked, and open until now
 * @stored: bitmap of the chunk: its pages that were stored to
 *
 * Return: whether any of its pages is written.
 */
bool rmem_dirty_close(struct rmem_region *region, struct folio *folio, const unsigned long *stored)
{
	unsigned int first = dirty_first(region, folio);
	unsigned int end = first + folio_nr_pages(folio);
	pgoff_t chunk = rmem_chunk_of(region, folio->index);
	struct rmem_dirty *dirty;
	bool written;

	spin_lock(&region->dirty_lock);
	/* it is there for as long as it has a bit */
	dirty = xa_load(&region->dirty, chunk);
	dirty_close(region, dirty, first, end, stored);
	written = find_next_bit(dirty->written, end, first) < end;
	dirty_put(region, chunk, dirty);
	spin_unlock(&region->dirty_lock);
	return written;
}

/* What was open and has been evicted, clean, is not open any more. */
void rmem_dirty_forget(struct rmem_region *region)
{
	unsigned int pages = 1u << region->chunk_order, i;
	DECLARE_BITMAP(stored, RMEM_CHUNK_PAGES_MAX);
	struct rmem_dirty *dirty;
	unsigned long chunk = 0;

	bitmap_zero(stored, pages);
	for (; READ_ONCE(region->open_pages); chunk++) {
		spin_lock(&region->dirty_lock);
		dirty = xa_find(&region->dirty, &chunk, ULONG_MAX, DIRTY_OPEN);
		for (i = 0; dirty && (i = find_next_bit(dirty->open, pages, i)) < pages; i++)
			/* who opens a page has it locked in the page cache */
			if (!rmem_pages_hold(region, (chunk << region->chunk_order) + i))
				dirty_close(region, dirty, i, i + 1, stored);
		if (dirty && bitmap_empty(dirty->open, pages)) {
			xa_clear_mark(&region->dirty, chunk, DIRTY_OPEN);
			dirty_put(region, chunk, dirty);
		}
		spin_unlock(&region->dirty_lock);
		if (!dirty)
			break;
		cond_resched();
	}
}

bool rmem_dirty_is_open(struct rmem_region *region, struct folio *folio)
{
	unsigned int first = dirty_first(region, folio);
	unsigned int end = first + folio_nr_pages(folio);
	struct rmem_dirty *dirty;
	bool open;

	if (!READ_ONCE(region->open_pages))
		return false;
	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, folio->index));
	open = dirty && find_next_bit(dirty->open, end, first) < end;
	spin_unlock(&region->dirty_lock);
	return open;
}

/*
 * rmem_dirty_take() - a folio is going to be written out
 * @folio: locked, just cleared of its dirty flag and write-protected
 * @pages: bitmap of the chunk; the folio's written pages are added
 *
 * Between rmem_dirty_hold() and rmem_dirty_give_back() of the write.
 */
void rmem_dirty_take(struct rmem_region *region, struct folio *folio, unsigned long *pages)
{
	unsigned int first = dirty_first(region, folio);
	unsigned int end = first + folio_nr_pages(folio), fresh, w;
	bool others = rmem_dirty_others(folio), whole;
	struct rmem_dirty *dirty;

	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, folio->index));
	whole = dirty_next(dirty, first, end) == end;
	fresh = dirty_fresh(dirty, first, end - first);
	for (w = BIT_WORD(first); w <= BIT_WORD(end - 1); w++) {
		unsigned long mask = dirty_mask(w, first, end);
		unsigned long written = whole ? mask : dirty->written[w] & mask;
		unsigned long taken = written | (dirty->held[w] & mask);

		pages[w] |= taken;
		/* what is only held was most likely not written, and is not at risk */
		dirty->writing[w] |= written;
		dirty->written[w] &= ~written;
		dirty->held[w] = others ? dirty->held[w] | taken : dirty->held[w] & ~taken;
	}
	dirty_count(region, (long)fresh - dirty_fresh(dirty, first, end - first));
	spin_unlock(&region->dirty_lock);
}

/*
 * rmem_dirty_give_back() - a write of the chunk is over
 * @taken: what it had taken; NULL: nothing
 * @again: those pages are dirty again
 */
void rmem_dirty_give_back(struct rmem_region *region, pgoff_t chunk, const unsigned long *taken,
			  bool again)
{
	unsigned int pages = 1u << region->chunk_order, fresh, w;
	struct rmem_dirty *dirty;

	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, chunk);
	fresh = dirty_fresh(dirty, 0, pages);
	for (w = 0; taken && w < BITS_TO_LONGS(pages); w++) {
		unsigned long risk = dirty->writing[w] & taken[w];

		dirty->writing[w] &= ~risk;
		if (again) {
			dirty->written[w] |= risk;
			dirty->held[w] |= taken[w] & ~risk;
		}
	}
	/* safe are those that were not written once more */
	dirty_count(region, (long)fresh - dirty_fresh(dirty, 0, pages));
	dirty->under_way--;
	dirty_put(region, chunk, dirty);
	spin_unlock(&region->dirty_lock);
}

static u64 dirty_folio_pages(struct rmem_region *region, struct folio *folio)
{
	unsigned int first = dirty_first(region, folio);
	unsigned int end = first + folio_nr_pages(folio), i;
	struct rmem_dirty *dirty;
	u64 count = 0;

	rmem_protect_settle(region, folio);
	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, folio->index));
	if (dirty)
		for (i = dirty_next(dirty, first, end); i < end; i = dirty_next(dirty, i + 1, end))
			count++;
	spin_unlock(&region->dirty_lock);
	/* its tag outlives its flag, until a write that has taken it begins */
	return count || !folio_test_dirty(folio) ? count : folio_nr_pages(folio);
}

/*
 * rmem_dirty_run() - the next written pages of a dirty folio
 * @from: where to begin, a page of the folio
 *
 * Return: false if none is left; else [@first, @end).
 */
bool rmem_dirty_run(struct rmem_region *region, struct folio *folio, pgoff_t from,
		    pgoff_t *first, pgoff_t *end)
{
	unsigned int mask = (1u << region->chunk_order) - 1;
	unsigned int begin = folio->index & mask, last = begin + folio_nr_pages(folio);
	unsigned int at, stop = last;
	pgoff_t base = folio->index - begin;
	struct rmem_dirty *dirty;

	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, folio->index));
	if (dirty && dirty_next(dirty, begin, last) < last) {
		at = dirty_next(dirty, from - base, last);
		for (stop = at; stop < last && dirty_next(dirty, stop, last) == stop; stop++)
			;
	} else {
		at = from - base;
	}
	spin_unlock(&region->dirty_lock);
	*first = base + at;
	*end = base + stop;
	return at < last;
}

/* Bytes in dirty pages, counted: the page cache is the truth. */
u64 rmem_dirty_bytes(struct rmem_region *region)
{
	struct address_space *mapping = region->inode->i_mapping;
	struct folio_batch batch;
	pgoff_t index = 0;
	unsigned int i;
	u64 pages = 0;

	folio_batch_init(&batch);
	while (filemap_get_folios_tag(mapping, &index, ULONG_MAX, PAGECACHE_TAG_DIRTY, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++)
			pages += dirty_folio_pages(region, batch.folios[i]);
		folio_batch_release(&batch);
		cond_resched();
	}
	return pages << PAGE_SHIFT;
}

void rmem_dirty_free(struct rmem_region *region)
{
	struct rmem_dirty *dirty;
	unsigned long chunk;

	xa_for_each(&region->dirty, chunk, dirty)
		kfree(dirty);
	xa_destroy(&region->dirty);
}
