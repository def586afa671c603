package relay

const (
	// A kind of events that is refused so often in a row, while others are taken, is not
	// refused for load.
	stubbornRefusals = 3
	// winsPerOther is how many events of other kinds were taken, at least, for each of
	// them that was refused.
	winsPerOther = 10
	kindLimit    = 64
)

// kinds tells events that are refused for what they are, by their name, from those that
// are refused for load: refusals for load hit every kind.
type kinds map[string]*kind

// kind is a kind of events that was refused since one of it was taken.
type kind struct {
	refusals     int
	wins, others int     // events of other kinds that were taken, and refused, since the first
	before       Learned // what was known of the receiver then
	known        bool    // it is refused for what it is
}

// succeed notes that an event was taken.
func (k kinds) succeed(name string) {
	delete(k, name)
	for _, other := range k {
		other.wins++
	}
}

// refuse notes a refusal without a hint, and reports whether it is for what the event is.
// What the pace made of the refusals that led to this is undone.
func (k kinds) refuse(name string, p *pace) bool {
	for other, n := range k {
		if other != name {
			n.others++
		}
	}
	this := k[name]
	if this == nil {
		if len(k) >= kindLimit {
			return false
		}
		this = &kind{before: p.Learned}
		k[name] = this
	}
	this.refusals++
	if this.refusals < stubbornRefusals || this.wins < min(this.refusals, 2*stubbornRefusals) ||
		this.wins < winsPerOther*this.others {
		return false
	}
	if !this.known {
		this.known = true
		p.acquit(this.before)
	}
	return true
}
