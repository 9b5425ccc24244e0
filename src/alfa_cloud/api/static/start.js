// Starts Swagger UI; no outside host is asked for anything.
(function () {
  "use strict";
  let ui = null;

  function givenLogin() {
    const authorized = ui && ui.authSelectors.authorized().toJS();
    const basic = authorized && authorized.basic;
    return basic && basic.value ? basic.value : null;
  }

  function withUtf8Login(request) {
    const login = givenLogin();
    if (login && request.headers && request.headers.Authorization) {
      request.headers.Authorization = "Basic " + window.basicUtf8(login.username + ":" + login.password);
    }
    return request;
  }

  ui = window.SwaggerUIBundle({
    // The origin bears no login, even where the page was opened by an address that does; fetch would refuse that.
    url: window.location.origin + "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    docExpansion: "list",
    filter: true,
    persistAuthorization: false,
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor: withUtf8Login,
  });
})();
