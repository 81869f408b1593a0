/** The settings for some callers of a gateway. */
import type * as Schema from "effect/Schema"
import type * as Values from "./settings/values.ts"

/**
 * Settings for some callers. A rule applies to a caller if all its conditions (`agent`, `key`, `model`, `headers`) match; a
 * condition that is left out matches every caller. In a text, `*` stands for any characters.
 *
 * @category models
 * @since 0.2.0
 */
export interface Rule extends Schema.Schema.Type<typeof Values.Rule> {}
