<?php

// Every address is the application's: there are no static files.
require '/srv/app/public/index.php';
