package workflows_test

import (
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/tallystick/tallystick/activities"
	"github.com/tallystick/tallystick/workflows"
)

// histories are of workflows that ran on a real server. README.md says how one is stored.
func histories(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/history/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no stored histories (%v)", err)
	}
	return files
}

// Workflows that were begun by an earlier release go on under this one.
func TestStoredHistoriesReplay(t *testing.T) {
	for _, file := range histories(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r := worker.NewWorkflowReplayer()
			workflows.RegisterGrants(r)
			workflows.RegisterFinance(r)
			if err := r.ReplayWorkflowHistoryFromJSONFile(quiet, file); err != nil {
				t.Error(err)
			}
		})
	}
}

// The replay has teeth: other code does not pass for the code that wrote the histories.
func TestReplayFindsAChange(t *testing.T) {
	changed := func(ctx workflow.Context, in workflows.GrantInput) (workflows.GrantResult, error) {
		var a *activities.Activities
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 1})
		err := workflow.ExecuteActivity(ctx, a.PostCustomer, activities.CustomerRef{CustomerID: in.CustomerID}).Get(ctx, nil)
		return workflows.GrantResult{}, err
	}
	r := worker.NewWorkflowReplayer()
	r.RegisterWorkflowWithOptions(changed, workflow.RegisterOptions{Name: "GrantLifecycle"})
	if err := r.ReplayWorkflowHistoryFromJSONFile(quiet, "testdata/history/grant-refunded.json"); err == nil {
		t.Error("it replays")
	}
}
