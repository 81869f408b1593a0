/** The bytes per token that an estimator has learned, for the page. */
import type * as Estimator from "floodgate/Estimator"
import { Estimating } from "floodgate/internal"
import type { PrefixRatio, TextRatio } from "./page/status.ts"

type Profile = Estimator.Learned["profiles"][number]

/** The bytes per token of each kind of call, the most recently used kind first. */
export const ratiosOf = ({ profiles }: Estimator.Learned): ReadonlyArray<TextRatio> =>
  profiles
    .flatMap(({ answers = 0, counted = 0, kind, pool, tokensPerByte, ...profile }) => {
      if (tokensPerByte === undefined || tokensPerByte.mean === 0) return []
      const prefixes = kind === undefined ? prefixRatio(profile) : undefined
      return [{ pool, kind, bytesPerToken: 1 / tokensPerByte.mean, answers, counted, prefixes }]
    })
    .reverse()

const prefixRatio = ({
  hits = [],
  prefixTokens,
  unusedFor
}: Pick<Profile, "hits" | "prefixTokens" | "unusedFor">): PrefixRatio | undefined =>
  prefixTokens === undefined || unusedFor === undefined
    ? undefined
    : { hit: Estimating.median(Estimating.recent(hits)), tokens: prefixTokens.mean, unusedFor: unusedFor.mean }
