"use strict";

// Shows the OpenAPI document whose address the page names.
const page = document.getElementById("swagger-ui");

SwaggerUIBundle({
  url: page.dataset.schemaUrl,
  domNode: page,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  validatorUrl: null, // never asks anybody outside
});
