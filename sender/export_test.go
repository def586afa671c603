package sender

// Open returns the number of open connections.
func (d *Dialer) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// Slots returns the number of addresses for which the dialer holds state.
func (d *Dialer) Slots() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.slots)
}
