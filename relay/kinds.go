package relay

const (
	// A kind of event that is refused this often in a row while others are accepted
	// is not refused for load.
	stubbornRefusals = 3
	// acceptedPerOther is how many events of other kinds must be accepted for each of
	// them that is refused.
	acceptedPerOther = 10
	kindLimit        = 64
)

// kinds distinguishes events that are refused for what they are, by name, from
// those refused for load, which affects every kind.
type kinds map[string]*kind

// kind is a kind of event that was refused since one was last accepted.
type kind struct {
	refusals         int
	accepted, others int     // events of other kinds accepted and refused since the first refusal
	before           Learned // what was known about the receiver then
	known            bool    // refused for what it is
}

// succeed records that an event was accepted.
func (k kinds) succeed(name string) {
	delete(k, name)
	for _, other := range k {
		other.accepted++
	}
}

// refuse records a refusal without a Retry-After and reports whether the event is
// refused for what it is. If so, it reverts what the pace made of the refusals that
// led to this.
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
	if this.refusals < stubbornRefusals || this.accepted < min(this.refusals, 2*stubbornRefusals) ||
		this.accepted < acceptedPerOther*this.others {
		return false
	}
	if !this.known {
		this.known = true
		p.revert(this.before)
	}
	return true
}
