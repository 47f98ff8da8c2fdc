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
 * folio dirty afterwards without saying which page. So a bit is cleared only
 * when, after the folio was write-protected, nobody else holds a reference;
 * otherwise it stays set, and a later "dirty" of that folio pushes the page
 * again. A dirty folio without any bit is pushed whole.
 */
#include <linux/pagevec.h>
#include <linux/slab.h>

#include "internal.h"

struct rmem_dirty {
	unsigned int under_way;		/* writes that may give bits back */
	unsigned long pages[];		/* one bit a page of the chunk */
};

static size_t dirty_size(const struct rmem_region *region)
{
	return struct_size((struct rmem_dirty *)NULL, pages,
			   BITS_TO_LONGS(1u << region->chunk_order));
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

		fresh = kzalloc(dirty_size(region), GFP_NOFS);
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

/*
 * rmem_dirty_set() - pages are about to be written
 *
 * The range must lie within one chunk; its folio is locked.
 * Return: 0 or ENOMEM.
 */
int rmem_dirty_set(struct rmem_region *region, pgoff_t first, unsigned long count)
{
	unsigned int pages = 1u << region->chunk_order;
	struct rmem_dirty *dirty = dirty_get_locked(region, rmem_chunk_of(region, first));

	if (dirty)
		bitmap_set(dirty->pages, first & (pages - 1), count);
	spin_unlock(&region->dirty_lock);
	return dirty ? 0 : -ENOMEM;
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

static void dirty_put(struct rmem_region *region, pgoff_t chunk, struct rmem_dirty *dirty)
{
	lockdep_assert_held(&region->dirty_lock);
	if (dirty->under_way || !bitmap_empty(dirty->pages, 1u << region->chunk_order))
		return;
	xa_erase(&region->dirty, chunk);
	kfree(dirty);
	atomic64_sub(dirty_size(region), &region->module_bytes);
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
	unsigned int first = folio->index & ((1u << region->chunk_order) - 1);
	unsigned int end = first + folio_nr_pages(folio), i;
	struct rmem_dirty *dirty;
	bool any = false, others;

	/* the page cache's references, the mappings', and our caller's */
	others = folio_ref_count(folio) > folio_nr_pages(folio) + rmem_folio_mapcount(folio) + 1;

	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, folio->index));
	for (i = find_next_bit(dirty->pages, end, first); i < end;
	     i = find_next_bit(dirty->pages, end, i + 1)) {
		any = true;
		__set_bit(i, pages);
		if (!others)
			__clear_bit(i, dirty->pages);
	}
	spin_unlock(&region->dirty_lock);
	if (!any)
		bitmap_set(pages, first, end - first);
}

/* A write of the chunk is over; @again: pages that are dirty again, or NULL. */
void rmem_dirty_give_back(struct rmem_region *region, pgoff_t chunk, const unsigned long *again)
{
	struct rmem_dirty *dirty;

	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, chunk);
	if (again)
		bitmap_or(dirty->pages, dirty->pages, again, 1u << region->chunk_order);
	dirty->under_way--;
	dirty_put(region, chunk, dirty);
	spin_unlock(&region->dirty_lock);
}

static u64 dirty_folio_pages(struct rmem_region *region, struct folio *folio)
{
	unsigned int first = folio->index & ((1u << region->chunk_order) - 1);
	unsigned int end = first + folio_nr_pages(folio), i;
	struct rmem_dirty *dirty;
	u64 count = 0;

	spin_lock(&region->dirty_lock);
	dirty = xa_load(&region->dirty, rmem_chunk_of(region, folio->index));
	if (dirty)
		for (i = find_next_bit(dirty->pages, end, first); i < end;
		     i = find_next_bit(dirty->pages, end, i + 1))
			count++;
	spin_unlock(&region->dirty_lock);
	return count ?: folio_nr_pages(folio);
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
	if (dirty && find_next_bit(dirty->pages, last, begin) < last) {
		at = find_next_bit(dirty->pages, last, from - base);
		stop = find_next_zero_bit(dirty->pages, last, at);
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
