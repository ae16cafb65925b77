package pcap

import (
	"errors"
	"io"
)

// merged interleaves several captures by time.
type merged struct {
	inputs []mergeInput
	due    int   // index of the input that gave the last packet; -1: none
	err    error // the first error of an input; told when all have ended
}

type mergeInput struct {
	src  Source
	head Packet
	live bool
}

// Merge interleaves captures by time; at equal times the earlier argument goes
// first, and the order within each capture is kept. A capture that breaks off
// ends alone: the others are read to their ends before its error is returned.
func Merge(sources ...Source) Source {
	if len(sources) == 1 {
		return sources[0]
	}
	m := &merged{due: -1}
	for _, s := range sources {
		m.inputs = append(m.inputs, mergeInput{src: s, live: true})
		m.advance(len(m.inputs) - 1)
	}
	return m
}

// advance reads the next packet of one input.
func (m *merged) advance(i int) {
	in := &m.inputs[i]
	var err error
	if in.head, err = in.src.Next(); err != nil {
		in.live = false
		if m.err == nil && !errors.Is(err, io.EOF) {
			m.err = err
		}
	}
}

// Next returns the earliest packet of all.
func (m *merged) Next() (Packet, error) {
	if m.due >= 0 {
		m.advance(m.due) // only now: its payload was the caller's until here
	}
	m.due = -1
	for i := range m.inputs {
		in := &m.inputs[i]
		if in.live && (m.due < 0 || in.head.At.Before(m.inputs[m.due].head.At)) {
			m.due = i
		}
	}
	switch {
	case m.due >= 0:
		return m.inputs[m.due].head, nil
	case m.err != nil:
		return Packet{}, m.err
	}
	return Packet{}, io.EOF
}
