package archive

import (
	"context"
	"errors"

	"github.com/trunktap/trunktap/recorder"
)

// Usage tells what is stored, as the catalogue accounts for it.
func (a *Archive) Usage(ctx context.Context, q recorder.UsageQuery) ([]recorder.Usage, error) {
	c, err := a.catalogue.get(ctx)
	if err != nil {
		return nil, err
	}
	acc, ok := c.(recorder.Accountant)
	if !ok {
		return nil, errors.New("the catalogue keeps no account")
	}
	return acc.Usage(ctx, q)
}
