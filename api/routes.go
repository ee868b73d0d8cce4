package api

import (
	"net/http"
	"time"
)

// table is every operation of the API with the roles that may call it; admin may call all.
func (s *Server) table() []route {
	const (
		get, post, patch = http.MethodGet, http.MethodPost, http.MethodPatch
		put, remove      = http.MethodPut, http.MethodDelete
		look             = 20 * time.Second // of reads; operations have bounds of their own
	)
	manage := support | finance
	return []route{
		{Method: post, Path: "/v1/consume", Roles: product, handle: s.consume, limit: maxConsume},
		{Method: post, Path: "/v1/consume/batch", Roles: product, handle: s.consumeBatch, limit: maxBatch},
		{Method: post, Path: "/v1/quote", Roles: product | support, handle: s.quote, limit: maxConsume},
		{Method: post, Path: "/v1/holds", Roles: product, handle: s.createHold},
		{Method: get, Path: "/v1/holds", Roles: anyRole, handle: s.listHolds, timeout: look},
		{Method: get, Path: "/v1/holds/:hold", Roles: anyRole, handle: s.getHold, timeout: look},
		{Method: post, Path: "/v1/holds/:hold/extend", Roles: product, handle: s.extendHold, timeout: look},
		{Method: post, Path: "/v1/holds/:hold/capture", Roles: product, handle: s.captureHold, timeout: look},
		{Method: post, Path: "/v1/holds/:hold/release", Roles: product | support, handle: s.releaseHold, timeout: look},
		{Method: get, Path: "/v1/customers/:customer/balances", Roles: anyRole, handle: s.balances},

		{Method: post, Path: "/v1/customers", Roles: support, handle: s.createCustomer, timeout: look},
		{Method: get, Path: "/v1/customers", Roles: anyRole, handle: s.listCustomers, timeout: look},
		{Method: get, Path: "/v1/customers/:customer", Roles: anyRole, handle: s.getCustomer, timeout: look},
		{Method: patch, Path: "/v1/customers/:customer", Roles: manage, handle: s.updateCustomer, timeout: look},
		{Method: get, Path: "/v1/customers/:customer/balance", Roles: anyRole, handle: s.customerBalanceAt, timeout: look},
		{Method: get, Path: "/v1/customers/:customer/history", Roles: support | finance | ops, handle: s.customerHistory, timeout: look},
		{Method: get, Path: "/v1/customers/:customer/stream", Roles: anyRole, handle: s.streamCustomer, stream: true},
		{Method: post, Path: "/v1/customers/:customer/members", Roles: support, handle: s.createMember, timeout: look},
		{Method: get, Path: "/v1/customers/:customer/members", Roles: anyRole, handle: s.listMembers, timeout: look},

		{Method: post, Path: "/v1/customers/:customer/rate_card_assignments", Roles: manage, handle: s.assignCard, timeout: look},
		{Method: get, Path: "/v1/customers/:customer/rate_card_assignments", Roles: anyRole, handle: s.listAssignments, timeout: look},
		{Method: post, Path: "/v1/customers/:customer/rate_card_assignments/:assignment/end", Roles: manage, handle: s.endAssignment, timeout: look},

		{Method: post, Path: "/v1/wallets", Roles: support, handle: s.createWallet, timeout: look},
		{Method: get, Path: "/v1/wallets", Roles: anyRole, handle: s.listWallets, timeout: look},
		{Method: get, Path: "/v1/wallets/:wallet", Roles: anyRole, handle: s.getWallet, timeout: look},
		{Method: patch, Path: "/v1/wallets/:wallet", Roles: support, handle: s.updateWallet, timeout: look},
		{Method: get, Path: "/v1/wallets/:wallet/balance", Roles: anyRole, handle: s.walletBalanceAt, timeout: look},
		{Method: get, Path: "/v1/wallets/:wallet/history", Roles: support | finance | ops, handle: s.walletHistory, timeout: look},

		{Method: post, Path: "/v1/grants", Roles: support, handle: s.createGrant, timeout: look},
		{Method: get, Path: "/v1/grants", Roles: anyRole, handle: s.listGrants, timeout: look},
		{Method: get, Path: "/v1/grants/:grant", Roles: anyRole, handle: s.getGrant, timeout: look},
		{Method: get, Path: "/v1/grants/:grant/balance", Roles: anyRole, handle: s.grantBalanceAt, timeout: look},
		{Method: get, Path: "/v1/grants/:grant/history", Roles: support | finance | ops, handle: s.grantHistory, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/issue", Roles: support, handle: s.issueGrant, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/extend", Roles: support, handle: s.extendGrant, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/void", Roles: support, handle: s.voidGrant, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/freeze", Roles: support | ops, handle: s.freezeGrant, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/unfreeze", Roles: support | ops, handle: s.unfreezeGrant, timeout: look},
		{Method: get, Path: "/v1/grants/:grant/refundable", Roles: support | finance | ops, handle: s.refundable, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/refunds/preview", Roles: support | finance, handle: s.previewRefund, timeout: look},
		{Method: post, Path: "/v1/grants/:grant/refunds", Roles: support, handle: s.createRefund, timeout: look},
		{Method: get, Path: "/v1/refunds", Roles: support | finance | ops, handle: s.listRefunds, timeout: look},
		{Method: get, Path: "/v1/refunds/:refund", Roles: support | finance | ops, handle: s.getRefund, timeout: look},
		{Method: get, Path: "/v1/operations/:customer/:ver", Roles: support | finance | ops, handle: s.operation, timeout: look},

		{Method: post, Path: "/v1/units", Roles: finance, handle: s.createUnit, timeout: look},
		{Method: get, Path: "/v1/units", Roles: anyRole, handle: s.listUnits, timeout: look},
		{Method: post, Path: "/v1/legal_entities", Roles: finance, handle: s.createEntity, timeout: look},
		{Method: get, Path: "/v1/legal_entities", Roles: anyRole, handle: s.listEntities, timeout: look},
		{Method: post, Path: "/v1/rate_cards", Roles: finance, handle: s.createRateCard, timeout: look},
		{Method: get, Path: "/v1/rate_cards", Roles: anyRole, handle: s.listRateCards, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card", Roles: anyRole, handle: s.getRateCard, timeout: look},
		{Method: post, Path: "/v1/rate_cards/:rate_card/versions", Roles: finance, handle: s.publishRateCard, limit: maxRateCard, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card/versions", Roles: anyRole, handle: s.listRateCardVersions, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card/versions/:version", Roles: anyRole, handle: s.getRateCardVersion, timeout: look},
		{Method: post, Path: "/v1/rate_cards/:rate_card/versions/:version/withdraw", Roles: finance, handle: s.withdrawRateCard, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card/diff", Roles: anyRole, handle: s.diffRateCard, timeout: look},
		{Method: post, Path: "/v1/rate_cards/:rate_card/drafts", Roles: finance, handle: s.createDraft, limit: maxRateCard, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card/drafts", Roles: anyRole, handle: s.listDrafts, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card/drafts/:draft", Roles: anyRole, handle: s.getDraft, timeout: look},
		{Method: put, Path: "/v1/rate_cards/:rate_card/drafts/:draft", Roles: finance, handle: s.replaceDraft, limit: maxRateCard, timeout: look},
		{Method: remove, Path: "/v1/rate_cards/:rate_card/drafts/:draft", Roles: finance, handle: s.deleteDraft, timeout: look},
		{Method: get, Path: "/v1/rate_cards/:rate_card/drafts/:draft/check", Roles: anyRole, handle: s.checkDraft, timeout: look},
		{Method: post, Path: "/v1/rate_cards/:rate_card/drafts/:draft/publish", Roles: finance, handle: s.publishDraft, timeout: look},
		{Method: post, Path: "/v1/backtests", Roles: finance, handle: s.createBacktest, limit: maxRateCard, timeout: look},
		{Method: get, Path: "/v1/backtests", Roles: finance, handle: s.listBacktests, timeout: look},
		{Method: get, Path: "/v1/backtests/:backtest", Roles: finance, handle: s.getBacktest, timeout: look},
		{Method: get, Path: "/v1/backtests/:backtest/models", Roles: finance, handle: s.backtestModels, timeout: look},
		{Method: get, Path: "/v1/backtests/:backtest/customers", Roles: finance, handle: s.backtestCustomers, timeout: look},
		{Method: post, Path: "/v1/backtests/:backtest/cancel", Roles: finance, handle: s.cancelBacktest, timeout: look},
		{Method: post, Path: "/v1/fx_rates/import", Roles: finance, handle: s.importFXRates, limit: maxRates, timeout: writeTimeout},
		{Method: post, Path: "/v1/fx_rates", Roles: finance, handle: s.createFXRate, timeout: look},
		{Method: get, Path: "/v1/fx_rates", Roles: finance | ops, handle: s.listFXRates, timeout: look},
		{Method: get, Path: "/v1/fx_rates/lookup", Roles: anyRole, handle: s.lookUpFXRate, timeout: look},

		{Method: post, Path: "/v1/cost_catalogues/drafts", Roles: finance, handle: s.importCatalogue, limit: maxCatalogue, timeout: look},
		{Method: get, Path: "/v1/cost_catalogues/drafts", Roles: finance | ops, handle: s.listCostDrafts, timeout: look},
		{Method: get, Path: "/v1/cost_catalogues/drafts/:cost_draft", Roles: finance | ops, handle: s.getCostDraft, timeout: look},
		{Method: get, Path: "/v1/cost_catalogues/drafts/:cost_draft/document", Roles: finance | ops, handle: s.getCostDraftDocument, timeout: look},
		{Method: remove, Path: "/v1/cost_catalogues/drafts/:cost_draft", Roles: finance, handle: s.deleteCostDraft, timeout: look},
		{Method: post, Path: "/v1/cost_catalogues/drafts/:cost_draft/publish", Roles: finance, handle: s.publishCatalogue, timeout: look},
		{Method: get, Path: "/v1/cost_catalogues", Roles: finance | ops, handle: s.listCatalogues, timeout: look},
		{Method: get, Path: "/v1/cost_catalogues/:cost_catalogue", Roles: finance | ops, handle: s.getCatalogue, timeout: look},
		{Method: get, Path: "/v1/cost_catalogues/:cost_catalogue/document", Roles: finance | ops, handle: s.getCatalogueDocument, timeout: look},
		{Method: post, Path: "/v1/cost_catalogues/:cost_catalogue/rate_card", Roles: finance, handle: s.makeRateCard, timeout: look},

		{Method: get, Path: "/v1/quarantined_usage", Roles: support | finance | ops, handle: s.listQuarantined, timeout: look},
		{Method: post, Path: "/v1/quarantined_usage/retry", Roles: manage, handle: s.retryManyQuarantined, timeout: look},
		{Method: get, Path: "/v1/quarantined_usage/:quarantined", Roles: support | finance | ops, handle: s.getQuarantined, timeout: look},
		{Method: post, Path: "/v1/quarantined_usage/:quarantined/retry", Roles: manage, handle: s.retryQuarantined, timeout: look},
		{Method: post, Path: "/v1/quarantined_usage/:quarantined/discard", Roles: finance, handle: s.discardQuarantined, timeout: look},

		{Method: get, Path: "/v1/finance/trial_balance", Roles: finance | ops, handle: s.trialBalance, timeout: look},
		{Method: get, Path: "/v1/finance/roll_forward", Roles: finance | ops, handle: s.rollForward, timeout: look},
		{Method: get, Path: "/v1/finance/journal_entries", Roles: finance | ops, handle: s.journalEntries, timeout: look},
		{Method: get, Path: "/v1/finance/periods", Roles: finance | ops, handle: s.periods, timeout: look},
		{Method: post, Path: "/v1/finance/periods/:legal_entity/:period/seal", Roles: finance, handle: s.sealPeriod, timeout: writeTimeout},
		{Method: get, Path: "/v1/finance/seals", Roles: finance | ops, handle: s.listSeals, timeout: look},
		{Method: get, Path: "/v1/finance/journal_entries/:journal_entry/proof", Roles: finance | ops, handle: s.proveEntry, timeout: look},
		{Method: post, Path: "/v1/finance/recognise", Roles: finance, handle: s.recognise, timeout: writeTimeout},

		{Method: post, Path: "/v1/api_keys", handle: s.createKey, Roles: admin, timeout: look},
		{Method: get, Path: "/v1/api_keys", handle: s.listKeys, Roles: admin, timeout: look},
		{Method: post, Path: "/v1/api_keys/:api_key/revoke", Roles: admin, handle: s.revokeKey, timeout: look},
		{Method: get, Path: "/v1/events", Roles: anyRole, handle: s.listEvents, timeout: look},
		{Method: get, Path: "/v1/events/:event", Roles: anyRole, handle: s.getEvent, timeout: look},
		{Method: post, Path: "/v1/webhook_endpoints", Roles: ops, handle: s.createEndpoint, timeout: look},
		{Method: get, Path: "/v1/webhook_endpoints", Roles: ops, handle: s.listEndpoints, timeout: look},
		{Method: get, Path: "/v1/webhook_endpoints/:webhook_endpoint", Roles: ops, handle: s.getEndpoint, timeout: look},
		{Method: patch, Path: "/v1/webhook_endpoints/:webhook_endpoint", Roles: ops, handle: s.updateEndpoint, timeout: look},
		{Method: remove, Path: "/v1/webhook_endpoints/:webhook_endpoint", Roles: ops, handle: s.deleteEndpoint, timeout: look},
		{Method: post, Path: "/v1/webhook_endpoints/:webhook_endpoint/rotate_secret", Roles: ops, handle: s.rotateSecret, timeout: look},
		{Method: post, Path: "/v1/webhook_endpoints/:webhook_endpoint/test", Roles: ops, handle: s.testEndpoint, timeout: look},
		{Method: post, Path: "/v1/webhook_endpoints/:webhook_endpoint/replay", Roles: ops, handle: s.replayDeliveries, timeout: look},
		{Method: get, Path: "/v1/webhook_endpoints/:webhook_endpoint/deliveries", Roles: ops, handle: s.listDeliveries, timeout: look},
		{Method: get, Path: "/v1/notifications", Roles: anyRole, handle: s.notifications, timeout: look},
		{Method: get, Path: "/v1/audit", Roles: support | finance | ops, handle: s.audit, timeout: look},

		{Method: get, Path: "/healthz", handle: s.healthz},
		{Method: get, Path: "/readyz", handle: s.readyz},
		{Method: get, Path: "/metrics", handle: s.metricsPage()},
	}
}
