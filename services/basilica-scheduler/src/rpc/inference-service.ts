import type { ServiceImpl } from "@connectrpc/connect";
import type { Inference } from "@covenant/contracts/basilica";
import type { InferenceRouter } from "../inference/router.ts";
import { nextPageToken, readPage } from "./paging.ts";

/** Handlers of basilica.v1.Inference at the scheduler: everything is passed on to replicas. */
export function inferenceService({
  router,
}: {
  router: InferenceRouter;
}): ServiceImpl<typeof Inference> {
  return {
    async listModels(request) {
      const page = readPage(request);
      const all = await router.models();
      const models = all.slice(page.offset, page.offset + page.count);
      return { models, nextPageToken: nextPageToken(page, all.length > page.offset + page.count) };
    },
    complete: (request, context) => router.complete(request, context.signal),
    getReceipt: (request) => router.receipt(request.completionId, request.choice),
    verifyReceipt: (request, context) => router.verify(request, context.signal),
  };
}
