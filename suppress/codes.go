package suppress

// Code is a sequence of digits that stands for a signal.
type Code struct {
	Digits string // of 0123456789*#ABCD
	Event  Event
}
