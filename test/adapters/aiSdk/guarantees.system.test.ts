import { guarantees } from "../../support/clientSuite.ts"
import { aiSdkServed, middlewareServed } from "../../support/ways.ts"

// The guarantees of every way to use the governor, for the middlewares of the SDKs.
for (const way of [middlewareServed, aiSdkServed]) guarantees(way)
