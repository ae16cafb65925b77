//go:build !linux

package relay

import (
	"fmt"
	"runtime"

	"github.com/trunktap/trunktap/media/relay/kernel"
)

func openOffload(Config) (offload, []any, error) {
	return nil, nil, fmt.Errorf("%w: it is for Linux, this is %s", kernel.ErrUnsupported, runtime.GOOS)
}
