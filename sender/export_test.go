package sender

// Open returns how many connections there are now.
func (d *Dialer) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}
