package sender

// Open returns how many connections there are now.
func (d *Dialer) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// Slots returns for how many addresses the dialer remembers something.
func (d *Dialer) Slots() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.slots)
}
