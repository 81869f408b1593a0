/**
 * The small worlds that are searched. Each has few callers and small numbers, and is about one subject.
 */
import type { Scope } from "./play.ts"

const none = { requests: 1, inputTokens: 0, outputTokens: 0 }
/** For a bucket of 4 tokens: a quarter, three quarters, and more than it holds. */
const small = { ...none, tokens: 1 }
const large = { ...none, tokens: 3 }
const oversized = { ...none, tokens: 6 }
const bucket = { perSecond: 2, burst: 4 }

export const scopes = {
  bucket: {
    name: "bucket",
    settings: [{ limits: { tokens: bucket } }],
    agents: ["a", "b"],
    sizes: [small, large, oversized],
    calls: 4,
    endings: ["used", "half", "twice", "gone"],
    leaves: true,
    ticks: [500]
  },
  places: {
    name: "places",
    settings: [
      { limits: {}, concurrency: 1 },
      { limits: {}, concurrency: 2 }
    ],
    agents: ["a", "b"],
    sizes: [small],
    calls: 5,
    endings: ["used", "kept", "gone"],
    leaves: true,
    ticks: [1]
  },
  harms: {
    name: "harms",
    settings: [
      { limits: { tokens: { total: 9 } }, concurrency: 1 },
      { limits: { tokens: { total: 9 } }, concurrency: 2 },
      { limits: { tokens: { total: 2 } }, concurrency: 1 }
    ],
    agents: ["a", "b"],
    careless: ["a"],
    sizes: [small, large],
    calls: 5,
    endings: ["used", "gone"],
    leaves: true,
    closes: true,
    ticks: []
  },
  dimensions: {
    name: "dimensions",
    settings: [{ limits: { requests: { perSecond: 1, burst: 2 }, tokens: bucket }, concurrency: 2 }],
    agents: ["a", "b"],
    sizes: [small, large],
    calls: 4,
    endings: ["used", "none", "twice"],
    leaves: true,
    ticks: [500]
  },
  turns: {
    name: "turns",
    settings: [{ limits: { tokens: bucket }, concurrency: 1 }],
    agents: ["a", "b"],
    sizes: [small, large],
    calls: 6,
    endings: ["used"],
    ticks: [1_000]
  },
  shares: {
    name: "shares",
    settings: [{ limits: { tokens: { perSecond: 100, burst: 400 } }, concurrency: 1 }],
    agents: ["a", "b"],
    sizes: [small],
    calls: 7,
    endings: ["used"],
    ticks: []
  },
  jobs: {
    name: "jobs",
    settings: [{ limits: { tokens: { perSecond: 100, burst: 400 } }, concurrency: 1 }],
    agents: ["a", "b", "c"],
    owners: { a: { job: "j" }, b: { job: "j" } },
    sizes: [small],
    calls: 7,
    endings: ["used"],
    leaves: true,
    ticks: []
  },
  callers: {
    name: "callers",
    settings: [{ limits: { tokens: { perSecond: 100, burst: 400 } }, concurrency: 1 }],
    agents: ["a", "b", "c"],
    owners: { a: { job: "j", caller: "x" }, b: { job: "k", caller: "x" }, c: { job: "j", caller: "y" } },
    sizes: [small],
    calls: 7,
    endings: ["used"],
    ticks: []
  },
  corrections: {
    name: "corrections",
    settings: [{ limits: { tokens: { perSecond: 100, burst: 400 } }, concurrency: 1 }],
    agents: ["a", "b"],
    sizes: [small],
    calls: 5,
    endings: ["none", "twice"],
    leaves: true,
    ticks: []
  },
  priorities: {
    name: "priorities",
    settings: [{ limits: { tokens: bucket }, concurrency: 1 }],
    agents: ["a", "b"],
    sizes: [small],
    priorities: [0, 1],
    fronts: true,
    calls: 4,
    endings: ["used", "none"],
    leaves: true,
    ticks: [500]
  },
  window: {
    name: "window",
    settings: [{ limits: { tokens: { perMinute: 6, burst: 3, window: "sliding" } } }],
    agents: ["a", "b"],
    sizes: [small, large, oversized],
    calls: 4,
    endings: ["used", "half", "twice"],
    leaves: true,
    ticks: [20_000]
  },
  quota: {
    name: "quota",
    settings: [
      { limits: { tokens: { total: 6 } }, concurrency: 1 },
      { limits: { tokens: { total: 9 } }, concurrency: 1 }
    ],
    agents: ["a", "b"],
    sizes: [small, large],
    calls: 4,
    endings: ["used", "none", "twice"],
    leaves: true,
    ticks: [1_000]
  },
  resize: {
    name: "resize",
    settings: [
      { limits: { tokens: bucket }, concurrency: 2 },
      { limits: { tokens: { perSecond: 4, burst: 8 } }, concurrency: 1 },
      { limits: { tokens: { perSecond: 1, burst: 2 } } }
    ],
    agents: ["a", "b"],
    sizes: [small, large],
    calls: 3,
    endings: ["used", "half", "twice"],
    leaves: true,
    ticks: [500]
  },
  rejections: {
    name: "rejections",
    settings: [{ limits: { tokens: bucket }, concurrency: 2 }],
    agents: ["a", "b"],
    sizes: [small],
    calls: 5,
    endings: ["used", "rejected"],
    ticks: [500]
  },
  outage: {
    name: "outage",
    settings: [{ limits: { tokens: bucket }, concurrency: 2 }],
    agents: ["a", "b"],
    sizes: [small],
    calls: 6,
    endings: ["used", "overloaded", "kept"],
    ticks: [1_000]
  },
  probes: {
    name: "probes",
    settings: [{ limits: { tokens: bucket } }],
    agents: ["a"],
    sizes: [small],
    calls: 4,
    endings: ["overloaded", "kept"],
    ticks: [1_000]
  },
  ramp: {
    name: "ramp",
    settings: [{ limits: { tokens: bucket } }],
    agents: ["a"],
    sizes: [small],
    calls: 4,
    endings: ["used", "ramp", "kept"],
    pauses: [2_000],
    ticks: [1_000]
  },
  unknown: {
    name: "unknown",
    settings: [{ limits: {} }],
    agents: ["a", "b"],
    sizes: [small, large],
    calls: 5,
    endings: ["used", "rejected"],
    leaves: true,
    headers: [0, 10],
    ticks: [250]
  }
} as const satisfies Record<string, Scope>

export type ScopeName = keyof typeof scopes
