package relay

// window tracks which of the events read from the log are settled, and so how
// far the cursor may go. Filtered events need no place in it.
type window struct {
	entries []windowEntry // in order of sequence, from first on
	first   int           // how many entries were dropped before entries[0]
	read    int64         // the position up to which the log was read
}

type windowEntry struct {
	sequence int64
	settled  bool
}

// add notes an event that is to be settled and returns its place.
func (w *window) add(sequence int64) int {
	w.entries = append(w.entries, windowEntry{sequence: sequence})
	return w.first + len(w.entries) - 1
}

// settle marks the event at a place and drops the settled ones at the front.
func (w *window) settle(place int) {
	w.entries[place-w.first].settled = true
	n := 0
	for n < len(w.entries) && w.entries[n].settled {
		n++
	}
	if n == 0 {
		return
	}
	w.first += n
	w.entries = w.entries[n:]
}

// cursor is the highest position below which all is settled.
func (w *window) cursor() int64 {
	if len(w.entries) == 0 {
		return w.read
	}
	return w.entries[0].sequence - 1
}

// len is how many places the window spans, settled ones behind an unsettled one
// included.
func (w *window) len() int { return len(w.entries) }
