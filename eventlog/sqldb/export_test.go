package sqldb

// GroupSize and GroupTime are the limits of a shared transaction.
const (
	GroupSize = groupSize
	GroupTime = groupTime
)
