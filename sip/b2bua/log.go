package b2bua

import (
	"context"
	"log/slog"
)

// callLog adds to each line which call it is about: only then, for most calls
// never write one.
type callLog struct {
	slog.Handler
	trunk, callID string
}

// Handle writes a line.
func (l *callLog) Handle(ctx context.Context, r slog.Record) error {
	return l.full().Handle(ctx, r)
}

// WithAttrs is for those who add more.
func (l *callLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.full().WithAttrs(attrs) }

// WithGroup is for those who add more.
func (l *callLog) WithGroup(name string) slog.Handler { return l.full().WithGroup(name) }

func (l *callLog) full() slog.Handler {
	return l.Handler.WithAttrs([]slog.Attr{slog.String("trunk", l.trunk), slog.String("sip_call_id", l.callID)})
}
