import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import { describe, expect, it } from "tstyche"

declare const budget: Budget.TokenBudget["Service"]
declare const reservation: Budget.Reservation

describe("Budget", () => {
  it("reserve needs a scope, and fails with the budget's own error", () => {
    expect(budget.reserve({ tokens: 1 })).type.toBe<
      Effect.Effect<Budget.Reservation, Budget.BudgetError, Scope.Scope>
    >()
  })

  it("the members of a reservation need nothing and do not fail", () => {
    expect(reservation.observe({ dimensions: {}, usage: { tokens: 1 } })).type.toBe<Effect.Effect<void>>()
    expect(reservation.settle({ tokens: 1 })).type.toBe<Effect.Effect<void>>()
    expect(reservation.fail({ reason: "overload" })).type.toBe<
      Effect.Effect<"isolated" | "exhausted" | "ramp" | "outage" | "impossible">
    >()
    expect(reservation.refund).type.toBe<Effect.Effect<void>>()
  })

  it("a copy of a reservation is one, and so is a decorated one", () => {
    expect({ ...reservation }).type.toBeAssignableTo<Budget.Reservation>()
    expect({ ...reservation, settle: () => Effect.void }).type.toBeAssignableTo<Budget.Reservation>()
  })

  it("a layer may wrap reserve, with the types of its arguments inferred", () => {
    const wrapped = Layer.effect(
      Budget.TokenBudget,
      Effect.map(Budget.TokenBudget, (inner) => ({
        ...inner,
        reserve: (estimate, options) => Effect.map(inner.reserve(estimate, options), (held) => ({ ...held }))
      }))
    )
    expect(wrapped).type.toBe<Layer.Layer<Budget.TokenBudget, never, Budget.TokenBudget>>()
  })

  it("a pause says how long, and a failure why", () => {
    expect(budget.pause).type.toBeCallableWith({ duration: "1 second" })
    expect(budget.pause).type.not.toBeCallableWith({})
    expect(reservation.fail).type.toBeCallableWith({ reason: "rateLimit" })
    expect(reservation.fail).type.not.toBeCallableWith({})
  })
})
