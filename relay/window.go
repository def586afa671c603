package relay

import "slices"

// window tracks which of the events read from the log are settled, and so how
// far the cursor may go. Filtered and merged events need no place in it.
type window struct {
	items []*item // in order of sequence
	gone  int     // how many of them were merged into others
	read  int64   // the position up to which the log was read
	// parked is the highest position of an event that was parked behind another:
	// it may be delivered while earlier ones are not.
	parked int64
}

// add notes an event that is to be settled.
func (w *window) add(it *item) { w.items = append(w.items, it) }

// settle marks an event.
func (w *window) settle(it *item) {
	it.settled = true
	w.trim()
}

// merge takes an event out that another one tells of.
func (w *window) merge(it *item) {
	it.settled, it.merged = true, true
	w.gone++
	w.trim()
	if w.gone > len(w.items)/2+windowLimit/8 {
		kept := make([]*item, 0, len(w.items)-w.gone)
		for _, other := range w.items {
			if !other.merged {
				kept = append(kept, other)
			}
		}
		w.items, w.gone = kept, 0
	}
}

// trim drops the settled events at the front.
func (w *window) trim() {
	n := 0
	for n < len(w.items) && w.items[n].settled {
		if w.items[n].merged {
			w.gone--
		}
		w.items[n] = nil
		n++
	}
	w.items = w.items[n:]
}

// overtaken are the events that are not settled although later ones are.
func (w *window) overtaken() (items []*item) {
	last := w.parked
	for _, it := range slices.Backward(w.items) {
		if it.settled && !it.merged {
			last = max(last, it.event.Sequence)
			break
		}
	}
	for _, it := range w.items {
		if !it.settled && it.event.Sequence < last {
			items = append(items, it)
		}
	}
	return items
}

// cursor is the highest position below which all is settled.
func (w *window) cursor() int64 {
	if len(w.items) == 0 {
		return w.read
	}
	return w.items[0].event.Sequence - 1
}

// len is how many events the window spans, settled ones behind an unsettled one
// included.
func (w *window) len() int { return len(w.items) - w.gone }
