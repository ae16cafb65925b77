//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// benchPackages hold the Go benchmarks beside the code that every packet, frame
// or message passes.
var benchPackages = []string{
	"./media/...", "./suppress", "./sip", "./recorder", "./recorder/segment", "./recorder/seal",
}

// goBenchmarks runs the benchmarks of our packages and reads what they print.
// It must be started in the folder of the module.
func goBenchmarks(ctx context.Context, progress io.Writer) ([]goBenchmark, error) {
	fmt.Fprintln(progress, "Go benchmarks …")
	args := append([]string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", "300ms", "-p", "1"}, benchPackages...)
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	list := parseGoBenchmarks(string(out))
	if ctx.Err() != nil {
		return list, context.Cause(ctx)
	}
	if err != nil && len(list) == 0 {
		return nil, errors.Join(err, errors.New(lastLine(stderr.String())))
	}
	return list, nil
}
