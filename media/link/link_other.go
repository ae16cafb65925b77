//go:build !linux

package link

import (
	"io"

	"github.com/trunktap/trunktap/media/pcap"
)

// Link cannot be had on this system.
type Link struct{ Counters Counters }

// Open returns ErrUnsupported.
func Open(Config) (*Link, error) { return nil, ErrUnsupported }

// NextFrame returns io.EOF.
func (l *Link) NextFrame() (pcap.Frame, error) { return pcap.Frame{}, io.EOF }

// Close does nothing.
func (l *Link) Close() error { return nil }
