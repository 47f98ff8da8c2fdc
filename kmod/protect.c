// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who notices a store: write protection, and the dirty bits of page tables.
 *
 * A clean page is write-protected, so that its first store faults. To a writer that goes
 * through the region page by page that is most of what a store costs, so the folios ahead
 * of it are opened: their pages become writable while nothing has been stored there. What
 * was stored is seen when the folio is protected again, before it is written out, by the
 * dirty bits that the processor has set. So that it comes to that, an open folio has the page
 * cache's tag for dirty ones, and its pages are at risk to the dirty log (dirty.c). It has
 * not the flag: by that the kernel tells of stores that no dirty bit knows.
 *
 * Nothing may be lost on the way, for which three things are enough:
 *
 * - Protecting stops stores first, and looks at the dirty bits then. Both look at each
 *   entry under its page table's lock.
 * - Where an entry goes away before (unmapping, reclaim), the kernel marks the folio dirty for
 *   its dirty bit, under the same lock. Who stores by reference (direct I/O, ptrace, KVM) marks
 *   it, too, unless it is marked already. Which page it was they do not say, so of an open folio
 *   that is marked all pages count as written.
 * - Who stores by reference may not be done with it. Then there is the reference, and what
 *   was open counts as written and is remembered as held.
 *
 * What was seen last stands in front of the next store, as with read-ahead: as many pages are
 * opened as lie at risk, without a gap, before them. So no more is opened in vain than was written.
 */
#include <linux/huge_mm.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "internal.h"

/* Pages stored to one after the other before any is opened, and those that are at once. */
#define PROTECT_RUN 16
#define PROTECT_AHEAD 512

struct opening {
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned long pfn;
	unsigned int opened;
};

/*
 * One entry, under its page table's lock. Ends the walk at the first that is not as expected:
 * until 6.15 it may be one too far in front, behind an entry that is empty.
 */
static int open_entry(pte_t *pte, unsigned long addr, void *data)
{
	struct opening *opening = data;
	pte_t old = ptep_get(pte);

	if (!pte_present(old) || pte_protnone(old) || pte_uffd_wp(old) ||
	    pte_pfn(old) != opening->pfn + ((addr - opening->start) >> PAGE_SHIFT) ||
	    pte_write(old) || pte_dirty(old))
		return -EAGAIN;
	/* who looks for stores by soft-dirty bits has them by write protection, too */
	if (IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) && !(opening->vma->vm_flags & VM_SOFTDIRTY) &&
	    !pte_soft_dirty(old))
		return -EAGAIN;
	set_pte_at(opening->vma->vm_mm, addr, pte, rmem_pte_mkwrite(old));
	opening->opened++;
	return 0;
}

/* Writeback shall come to it. */
static void open_tag(struct address_space *mapping, struct folio *folio)
{
	unsigned long flags;

	xa_lock_irqsave(&mapping->i_pages, flags);
	__xa_set_mark(&mapping->i_pages, folio->index, PAGECACHE_TAG_DIRTY);
	xa_unlock_irqrestore(&mapping->i_pages, flags);
}

/* Whether it is open now. */
static bool open_folio(struct rmem_region *region, struct vm_area_struct *vma,
		       struct folio *folio)
{
	struct address_space *mapping = region->inode->i_mapping;
	struct opening opening = { .vma = vma, .pfn = folio_pfn(folio) };
	DECLARE_BITMAP(stored, RMEM_CHUNK_PAGES_MAX);

	if (folio->mapping != mapping || READ_ONCE(region->dead))
		return false;
	if (xa_get_mark(&mapping->i_pages, folio->index, PAGECACHE_TAG_DIRTY))
		return !folio_test_dirty(folio);
	if (folio_test_writeback(folio) || folio_test_dirty(folio) ||
	    !folio_test_large(folio) || folio_test_pmd_mappable(folio) ||
	    folio->index < vma->vm_pgoff ||
	    folio_next_index(folio) > vma->vm_pgoff + vma_pages(vma) ||
	    rmem_dirty_open(region, folio))
		return false;
	opening.start = vma->vm_start + ((folio->index - vma->vm_pgoff) << PAGE_SHIFT);
	apply_to_existing_page_range(vma->vm_mm, opening.start, folio_size(folio), open_entry,
				     &opening);
	if (opening.opened) {
		open_tag(mapping, folio);
		return true;
	}
	bitmap_zero(stored, RMEM_CHUNK_PAGES_MAX);
	rmem_dirty_close(region, folio, stored);
	return false;
}

/*
 * Looks what was stored in a folio that is open, and locked; it is closed, and dirty if
 * anything was. If not it loses its tag, as by a write.
 *
 * With @stop every store faults afterwards, else only if some of it was not stored to: what is
 * dirty as a whole may stay writable.
 */
static void protect_close(struct rmem_region *region, struct folio *folio, bool stop)
{
	pgoff_t base = rmem_chunk_of(region, folio->index) << region->chunk_order;
	struct address_space *mapping = region->inode->i_mapping;
	pgoff_t at = folio->index, pages = folio_nr_pages(folio), first = 0, end = 0;
	DECLARE_BITMAP(stored, RMEM_CHUNK_PAGES_MAX);

	bitmap_zero(stored, RMEM_CHUNK_PAGES_MAX);
	if (!stop)
		clean_record_shared_mapping_range(mapping, at, pages, base, stored, &first, &end);
	if (find_next_zero_bit(stored, at - base + pages, at - base) < at - base + pages) {
		wp_shared_mapping_range(mapping, at, pages);
		clean_record_shared_mapping_range(mapping, at, pages, base, stored, &first, &end);
	}
	/* by reference; perhaps not yet done or told */
	if (folio_test_dirty(folio) || rmem_dirty_others(folio))
		bitmap_set(stored, at - base, pages);
	if (rmem_dirty_close(region, folio, stored)) {
		filemap_dirty_folio(mapping, folio);
	} else {
		folio_start_writeback(folio);
		folio_end_writeback(folio);
	}
}

/*
 * What lies behind a writer, from page @index to before @end, has been stored to, most likely, and
 * is to count in the kernel's limits for dirty pages, which so lag by no more than what is
 * opened at once.
 */
static void protect_behind(struct rmem_region *region, pgoff_t index, pgoff_t end)
{
	while (index < end) {
		struct folio *folio = rmem_pages_get(region, index);

		index = folio ? folio_next_index(folio) : index + 1;
		if (!folio)
			continue;
		if (index <= end && folio_trylock(folio)) {
			if (folio->mapping == region->inode->i_mapping &&
			    rmem_dirty_is_open(region, folio))
				protect_close(region, folio, false);
			folio_unlock(folio);
		}
		folio_put(folio);
	}
}

/*
 * rmem_protect_ahead() - a store has faulted; open what will be stored to next
 * @vmf: of the fault, which holds its mapping
 * @folio: of its page; locked and dirty, so that the inode stays dirty, too
 */
void rmem_protect_ahead(struct rmem_region *region, struct vm_fault *vmf, struct folio *folio)
{
	struct xarray *pages = &region->inode->i_mapping->i_pages;
	pgoff_t next = vmf->pgoff + 1, end;
	unsigned int small = 0;
	unsigned long run;

	/* a small folio costs as much to open as a fault */
	if (!rmem_can_see_stores() || !folio_test_large(folio) || next != folio_next_index(folio))
		return;
	/* both are exact to the page, and what is open in vain would count */
	if (READ_ONCE(region->dirty_limit) || READ_ONCE(region->push_threshold))
		return;
	/* before looking back, which takes longer */
	if (!rmem_pages_hold(region, next) || xa_get_mark(pages, next, PAGECACHE_TAG_DIRTY))
		return;
	run = rmem_dirty_before(region, next, PROTECT_AHEAD);
	if (run < PROTECT_RUN)
		return;
	protect_behind(region, next - run, folio->index);
	end = min(next + run, region->nr_pages);
	while (next < end && small <= 1u << region->folio_order) {
		struct folio *ahead = rmem_pages_get(region, next);
		bool opened = false;

		if (!ahead)
			return;
		next = folio_next_index(ahead);
		/* pages alone, one of which was there before the others; behind them it goes on */
		small = folio_test_large(ahead) ? 0 : small + 1;
		/* of a second folio the lock is only tried */
		if (!small && folio_trylock(ahead)) {
			opened = open_folio(region, vmf->vma, ahead);
			folio_unlock(ahead);
		}
		folio_put(ahead);
		if (!small && !opened)
			return;
	}
}

/*
 * rmem_protect_settle() - a folio that is open is closed, see protect_close()
 *
 * May sleep. Return: whether it was open and nothing was stored, so that it is clean.
 */
bool rmem_protect_settle(struct rmem_region *region, struct folio *folio)
{
	bool clean = false;

	if (!rmem_dirty_is_open(region, folio))
		return false;
	folio_lock(folio);
	if (folio->mapping == region->inode->i_mapping && rmem_dirty_is_open(region, folio)) {
		protect_close(region, folio, true);
		clean = !folio_test_dirty(folio);
	}
	folio_unlock(folio);
	return clean;
}
