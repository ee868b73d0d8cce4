package worker

import "context"

// numberEntries gives new journal entries the numbers under which they are sealed. What is not numbered yet can be changed without a trace, so it is
// done soon.
func (w *worker) numberEntries(ctx context.Context) (bool, error) {
	_, more, err := w.store.NumberEntries(ctx)
	return more, err
}

// measureSealer publishes how far the sealer is behind.
func (w *worker) measureSealer(ctx context.Context) (bool, error) {
	b, err := w.store.MeasureSealer(ctx)
	if err == nil {
		w.metrics.unnumbered.Set(float64(b.Entries))
		w.metrics.unnumberedOldest.Set(b.Oldest.Seconds())
	}
	return false, err
}
